package hold

import (
	"context"
	"net/http"
	"time"

	"github.com/tidings-dev/tidings/atproto/xrpc"
)

const (
	settleRetry   = 10 * time.Second // doubled with each failure
	settleRetryTo = 10 * time.Minute
)

// Settle makes the repository know where the account is by the configuration.
// What is new of that the log tells, once: at the first start after a move that
// the account is not active here, at the first after a move back that it is,
// and what it has. Start calls it before there are writes, and those are
// refused while the account is elsewhere, also after an error. Run calls it
// until it is done.
func (s *Server) Settle(ctx context.Context) error {
	settle, what := s.repo.Activate, "the account is active here again"
	if to := s.id.MovedTo; to != nil {
		settle = func(ctx context.Context) (bool, error) { return s.repo.Deactivate(ctx, to.String()) }
		what = "the account is not active here any more"
	}
	told, err := settle(ctx)
	if err != nil {
		s.lg.Error("subscribers were not told yet: "+what, "error", err)
		return err
	}
	if told {
		s.told = true
		s.lg.Info("subscribers are told: " + what)
	}
	return s.settleFolder(ctx)
}

// settleFolder lets subscribers fetch the account again if the repository is in
// another folder than at the last start: they may have followed one that was
// further than this copy. What they say themselves is no sign of it, since
// anybody can say it.
func (s *Server) settleFolder(ctx context.Context) error {
	told, err := s.repo.SetFolder(ctx, s.folder)
	if err != nil {
		s.lg.Error("it is not noted yet in which folder the repository is", "error", err)
	}
	if told {
		s.lg.Info("subscribers are told to fetch the account again: the repository was copied or restored since the last start")
	}
	return err
}

// settled waits until Settle is done, or the context ends.
func (s *Server) settled(ctx context.Context) bool {
	for wait := settleRetry; s.Settle(ctx) != nil; wait = min(2*wait, settleRetryTo) {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return false
		}
	}
	return true
}

var errDeactivated = xrpc.NewError(http.StatusUnauthorized, "AccountDeactivated", "Account is deactivated: it has moved, and its DID document shows where")

// here refuses what only an active account may do.
func (s *Server) here() error {
	if s.repo.MovedTo() != "" {
		return errDeactivated
	}
	return nil
}

// has says whether name, a DID or a handle, means an account that is here.
func (s *Server) has(name string) bool { return s.id.Matches(name) && s.here() == nil }

// status is what the account's is called while it is elsewhere.
func (s *Server) status() string {
	if s.here() == nil {
		return ""
	}
	return "deactivated"
}

// readable refuses a sync call for another repository, and for one whose
// account is elsewhere, unless that account asks.
func (s *Server) readable(c *xrpc.Call) error {
	if err := s.ownDID(c); err != nil {
		return err
	}
	if s.here() == nil {
		return nil
	}
	if c.Header.Get("Authorization") != "" {
		return s.session(c)
	}
	return s.repoDeactivated(c.Param("did"))
}

func (s *Server) repoDeactivated(name string) error {
	return xrpc.Errorf(http.StatusBadRequest, "RepoDeactivated", "Repo has been deactivated: %.300s; the account has moved to %s", name, s.repo.MovedTo())
}
