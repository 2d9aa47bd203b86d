package hold

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/tidings-dev/tidings/atproto/identity"

	"github.com/ipfs/go-cid"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/internal/store"
)

// BrokenError says that a hold is the one that was asked for, but its disk, or
// what the disk did to the repository, keeps it from being opened.
type BrokenError struct {
	identity.Identity
	Err error
}

func (e *BrokenError) Error() string { return e.Err.Error() }
func (e *BrokenError) Unwrap() error { return e.Err }

// broken makes a *BrokenError of what an operator's configuration is not to
// blame for.
func broken(err error, id identity.Identity) error {
	for _, mistake := range []error{repo.ErrNotExist, repo.ErrForeign, repo.ErrKey, store.ErrNewer} {
		if errors.Is(err, mistake) {
			return err
		}
	}
	return &BrokenError{id, err}
}

// Broken stands in for a hold that can't be opened, so that what is around it
// goes on: it shows the identity, answers all else with 503, and takes no
// writes. Whoever writes tries again, as with any repository that is away.
type Broken struct {
	*Server
	why error
}

// NewBroken makes a stand-in.
func NewBroken(e *BrokenError, lg *slog.Logger) (*Broken, error) {
	doc, err := e.Document()
	if err != nil {
		return nil, fmt.Errorf("hold: read public key: %w", err)
	}
	if lg == nil {
		lg = slog.New(slog.DiscardHandler)
	}
	return &Broken{&Server{id: e.Identity, doc: doc, lg: lg.With("component", "hold")}, e.Err}, nil
}

func (b *Broken) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/xrpc/") {
		allowBrowsers(w.Header())
		w.Header().Set("Retry-After", "300")
		b.reply(w, r, http.StatusServiceUnavailable, map[string]string{
			"error": "ServiceUnavailable", "message": "this hold can't read its repository; its operator's log says why",
		})
		return
	}
	b.Server.ServeHTTP(w, r)
}

// Apply is refused.
func (b *Broken) Apply(context.Context, []repo.Write, *cid.Cid) (repo.Result, error) {
	return repo.Result{}, b.why
}

// Get is refused.
func (b *Broken) Get(string, string) (cid.Cid, []byte, error) { return cid.Undef, nil, b.why }

// List is refused.
func (b *Broken) List(string, string, int, bool) ([]repo.Record, string, error) {
	return nil, "", b.why
}

// Head is not known.
func (b *Broken) Head() repo.Head { return repo.Head{} }
