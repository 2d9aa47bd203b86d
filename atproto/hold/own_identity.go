package hold

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/tidings-dev/tidings/atproto/guard"
)

const (
	identityTimeout = 5 * time.Second  // of one look, which start waits for
	identityRetry   = 10 * time.Second // until our own port is open, doubled with each failure
	identityRetryTo = time.Hour
	identityAgain   = time.Minute // while the document shows another key
	maxDocument     = 64 << 10
)

// ErrOtherKey: what the network is told of this DID is not what this hold is.
// Two processes that sign for one DID would have relays refuse both.
var ErrOtherKey = errors.New("another key is published for this hold's DID, so it signs nothing: is another hold running under this hostname, or is this an old copy of its data folder?")

// ownIdentity looks at our DID document as the network sees it.
type ownIdentity struct {
	url    *url.URL
	client *http.Client
	want   didDocument
	moved  bool // the account is elsewhere, which the document has to show
}

// newOwnIdentity is nil for localhost, which only this machine asks.
func newOwnIdentity(id Identity, doc didDocument) *ownIdentity {
	if isLocalhost(id.Hostname) {
		return nil
	}
	u := &url.URL{Scheme: "https", Host: id.Hostname, Path: "/.well-known/did.json"}
	return &ownIdentity{u, guard.Client(u), doc, id.MovedTo != nil}
}

// look returns nil if the document shows our key, ErrOtherKey with both if it
// shows another, and any other error if it can't be had, or does not show where
// the account has moved.
func (o *ownIdentity) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, identityTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, o.url.String(), nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "tidings")
	req.Header.Set("Cache-Control", "no-cache")
	resp, err := o.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", o.url, resp.Status)
	}
	var got didDocument
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxDocument)).Decode(&got); err != nil {
		return fmt.Errorf("%s is not a DID document: %w", o.url, err)
	}
	if got.ID != o.want.ID {
		return fmt.Errorf("%s is the document of %.200q", o.url, got.ID)
	}
	if o.moved && (got.signingKey() != o.want.signingKey() || got.host() != o.want.host()) {
		return fmt.Errorf("%s shows the account at %.200q with the key %.200q, and it has moved to %q with %q",
			o.url, got.host(), got.signingKey(), o.want.host(), o.want.signingKey())
	}
	if theirs, ours := got.signingKey(), o.want.signingKey(); theirs != ours {
		return fmt.Errorf("%w (%s shows %.200q, ours is %q)", ErrOtherKey, o.url, theirs, ours)
	}
	return nil
}

// signingKey is the one that commits are verified with, "" if there is none.
func (d didDocument) signingKey() string {
	for _, m := range d.VerificationMethod {
		if m.ID == d.ID+"#atproto" || m.ID == "#atproto" {
			return m.PublicKeyMultibase
		}
	}
	return ""
}

// host is where the account is, "" if that is not told.
func (d didDocument) host() string {
	for _, v := range d.Service {
		if v.ID == "#atproto_pds" || v.ID == d.ID+"#atproto_pds" {
			return v.ServiceEndpoint
		}
	}
	return ""
}

// CheckIdentity looks at the DID document of this hold as the network sees it,
// and has the repository refuse writes if that shows another key. It takes a
// few seconds at most. Start calls it before there are writes; Run looks again
// until it has seen the right key. A document that can't be had, as when only
// we could serve it, stops nothing. Of an account that has moved it looks
// whether the document shows that.
func (s *Server) CheckIdentity(ctx context.Context) error {
	if s.own == nil {
		return nil
	}
	err := s.own.look(ctx)
	switch {
	case errors.Is(err, ErrOtherKey):
		if s.repo.Suspended() == nil {
			s.lg.Error("the hold does not sign", "error", err)
		}
		s.repo.Suspend(err)
	case err == nil && s.repo.Suspended() != nil:
		s.lg.Info("the hold signs again: its DID document shows its key")
		s.repo.Suspend(nil)
	}
	return err
}

// unseen says what it means that the document was not seen as it should be.
func (o *ownIdentity) unseen() string {
	if o.moved {
		return "the network is not shown where the account has moved"
	}
	return "the hold's DID document can't be had; relays need it to verify what is signed"
}

// watchIdentity checks until the right key was seen.
func (s *Server) watchIdentity(ctx context.Context) {
	warned := false
	for wait := identityRetry; ; {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		err := s.CheckIdentity(ctx)
		switch {
		case err == nil || ctx.Err() != nil:
			return
		case errors.Is(err, ErrOtherKey):
			wait = identityAgain
			continue
		case !warned:
			s.lg.Warn(s.own.unseen(), "error", err)
			warned = true
		}
		wait = min(2*wait, identityRetryTo)
	}
}
