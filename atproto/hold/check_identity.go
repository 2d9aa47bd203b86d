package hold

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/atproto/identity"
)

const (
	identityRetry   = 10 * time.Second // until our own port is open, doubled with each failure
	identityRetryTo = time.Hour
	identityAgain   = time.Minute // while the document shows another key
)

// errOtherKey means that the DID document which the network sees has another
// key than this hold. Relays would refuse both of two processes that sign for one
// DID.
var errOtherKey = errors.New("the DID document has another key, so this hold does not sign: another hold may be running under this hostname, or this may be an old copy of its data folder")

// ownDocument compares our DID document with the one that the network sees.
type ownDocument struct {
	*identity.Source
	want  identity.Document
	moved bool // the account has moved, which the document has to show
}

// openOwnDocument does nothing on localhost, which only this machine resolves.
func (s *Server) openOwnDocument(cfg Config) error {
	if cfg.Local() {
		return nil
	}
	source, err := identity.NewSource(cfg.DID, "")
	if err != nil {
		return err
	}
	s.own = &ownDocument{source, s.doc, cfg.MovedTo != nil}
	return nil
}

// check returns nil if the published document shows our key, errOtherKey with
// both keys if it shows another, and any other error if the document cannot be
// fetched, or does not show where the account has moved.
func (o *ownDocument) check(ctx context.Context) error {
	got, err := o.Fetch(ctx)
	if err != nil {
		return err
	}
	if got.ID != o.want.ID {
		return fmt.Errorf("%s is the document of %.200q", o.URL, got.ID)
	}
	if o.moved && (got.SigningKey() != o.want.SigningKey() || got.Host() != o.want.Host()) {
		return fmt.Errorf("%s shows the account at %.200q with the key %.200q, but it has moved to %q with the key %q",
			o.URL, got.Host(), got.SigningKey(), o.want.Host(), o.want.SigningKey())
	}
	if theirs, ours := got.SigningKey(), o.want.SigningKey(); theirs != ours {
		return fmt.Errorf("%w (%s shows %.200q, ours is %q)", errOtherKey, o.URL, theirs, ours)
	}
	return nil
}

// CheckDocument compares the DID document that the network sees with the key of a
// hold, and for an account that has moved with its new host. The hold need not be
// running. It takes at most identity.FetchTimeout.
func CheckDocument(ctx context.Context, cfg RepoConfig) error {
	id, err := cfg.identity()
	if err != nil {
		return err
	}
	id.MovedTo = cfg.MovedTo
	want, err := id.Document()
	if err != nil {
		return err
	}
	source, err := identity.NewSource(id.DID, "")
	if err != nil {
		return err
	}
	return (&ownDocument{source, want, cfg.MovedTo != nil}).check(ctx)
}

// CheckIdentity compares the DID document that the network sees with this hold,
// and suspends writes to the repo if it has another key. It takes at most
// identity.FetchTimeout. It is called once before the first write; Run repeats it
// until the document has the right key. A document that cannot be fetched
// suspends nothing, because this process may be the one that is to serve it. For
// an account that has moved it checks that the document shows the new host.
func (s *Server) CheckIdentity(ctx context.Context) error {
	if s.own == nil {
		return nil
	}
	err := s.own.check(ctx)
	switch {
	case errors.Is(err, errOtherKey):
		if s.repo.Suspended() == nil {
			s.lg.Error("writes are suspended", "error", err)
		}
		s.repo.Suspend(err)
	case err == nil && s.repo.Suspended() != nil:
		s.lg.Info("writes are resumed: the DID document has this hold's key")
		s.repo.Suspend(nil)
	}
	return err
}

// watchIdentity repeats CheckIdentity until it succeeds.
func (s *Server) watchIdentity(ctx context.Context) {
	problem := "can't verify the hold's DID document, which relays need to verify commits"
	if s.own.moved {
		problem = "the hold's DID document does not show that the account has moved"
	}
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
		case errors.Is(err, errOtherKey):
			wait = identityAgain
			continue
		case !warned:
			s.lg.Warn(problem, "error", err)
			warned = true
		}
		wait = min(2*wait, identityRetryTo)
	}
}
