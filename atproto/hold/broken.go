package hold

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/atproto/xrpc"
	"github.com/tidings-dev/tidings/internal/store"
)

// BrokenError means that the hold is the configured one, and its disk or the
// state of its repo keeps it from being opened.
type BrokenError struct {
	identity.Identity
	Err error
}

func (e *BrokenError) Error() string { return e.Err.Error() }
func (e *BrokenError) Unwrap() error { return e.Err }

// broken wraps err in a *BrokenError unless the operator's configuration is the
// cause.
func broken(err error, id identity.Identity) error {
	for _, mistake := range []error{repo.ErrNotExist, repo.ErrForeign, repo.ErrKey, store.ErrNewer} {
		if errors.Is(err, mistake) {
			return err
		}
	}
	return &BrokenError{id, err}
}

// Broken replaces a hold that cannot be opened, so that the registry around it
// keeps working: it serves the DID document and handle, answers every other
// request with 503, and refuses reads and writes in process with the error that
// the hold was opened with.
type Broken struct {
	wellKnown
	err error
}

// brokenRetry is the Retry-After of its responses.
const brokenRetry = 5 * time.Minute

// NewBroken returns the replacement for a hold that could not be opened because of e.
func NewBroken(e *BrokenError, lg *slog.Logger) (*Broken, error) {
	doc, err := e.Document()
	if err != nil {
		return nil, fmt.Errorf("hold: %w", err)
	}
	if lg == nil {
		lg = slog.New(slog.DiscardHandler)
	}
	return &Broken{wellKnown{doc, lg.With("component", "hold")}, e.Err}, nil
}

// Reason returns the error that the hold was opened with.
func (b *Broken) Reason() error { return b.err }

func (b *Broken) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.URL.Path, "/xrpc/") {
		b.wellKnown.ServeHTTP(w, r)
		return
	}
	xrpc.AllowBrowsers(w.Header())
	unavailable := xrpc.Unavailable("this hold can't read its repo; the operator's log has the reason")
	unavailable.RetryAfter = brokenRetry
	xrpc.WriteError(w, unavailable, b.lg)
}

// Apply fails.
func (b *Broken) Apply(context.Context, []repo.Write, *cid.Cid) (repo.Result, error) {
	return repo.Result{}, b.err
}

// Get fails.
func (b *Broken) Get(string, string) (cid.Cid, []byte, error) { return cid.Undef, nil, b.err }

// List fails.
func (b *Broken) List(string, string, int, bool) ([]repo.Record, string, error) {
	return nil, "", b.err
}

// Head is zero.
func (b *Broken) Head() repo.Head { return repo.Head{} }

// Upload fails.
func (b *Broken) Upload(context.Context, io.Reader, int64, func([]byte) string) (repo.Blob, error) {
	return repo.Blob{}, b.err
}
