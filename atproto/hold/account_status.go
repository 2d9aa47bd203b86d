package hold

import (
	"context"
	"net/http"
	"time"

	"github.com/tidings-dev/tidings/atproto/xrpc"
)

// Account status.
//
// The configuration says where the account is: here, or at another host
// (Identity.MovedTo). The network has to be informed of a change, once, and
// nothing may be written here while the account is elsewhere, since the new host
// signs. The repo therefore keeps the status that was announced last, and each
// start compares it with the configuration (UpdateStatus):
//
//   - Moved away: one transaction stores the new host and appends #identity and
//     #account (deactivated) to the event log. Subscribers fetch the DID document
//     again, which shows the new host.
//   - Moved back: one transaction removes the host and appends #identity, #account
//     (active) and #sync, since subscribers may have followed the other host.
//   - Unchanged: nothing.
//
// A crash before the transaction leaves the old status, and the next start
// announces the change; a crash after it leaves nothing to do. While a change
// could not be announced, writes are refused if the repo or the configuration
// says that the account is elsewhere, and Run tries again. Relays are asked to
// crawl a deactivated account only by the process that announced it: there is
// nothing else for them to read.
//
// While deactivated, the sync methods answer 400 RepoDeactivated to everybody but
// the account's owner, who needs them to move the repo; repo methods answer as if
// there were no such repo, and writes are 401 AccountDeactivated.
const (
	statusRetry   = 10 * time.Second // doubled with each failure
	statusRetryTo = 10 * time.Minute
)

// UpdateStatus announces the configured status of the account, and a copied or
// restored repo, to subscribers if that was not done before. It is called once
// before the first write; Run repeats it until it succeeds.
func (s *Server) UpdateStatus(ctx context.Context) error {
	update, what := s.repo.Activate, "the account is active here again"
	if to := s.id.MovedTo; to != nil {
		update = func(ctx context.Context) (bool, error) { return s.repo.Deactivate(ctx, to.String()) }
		what = "the account is no longer active here"
	}
	announced, err := update(ctx)
	if err != nil {
		s.lg.Error("can't inform subscribers yet: "+what, "error", err)
		return err
	}
	if announced {
		s.announced = true
		s.lg.Info("subscribers are informed: " + what)
	}
	return s.updateFolder(ctx)
}

// updateFolder makes subscribers fetch the account again if the repo is in another
// folder than at the last start: it may be an old copy, and subscribers may have
// seen later commits. A cursor from the future is no sign of that, because any
// client can send one.
func (s *Server) updateFolder(ctx context.Context) error {
	announced, err := s.repo.SetFolder(ctx, s.folder)
	if err != nil {
		s.lg.Error("can't store the folder of the repo yet", "error", err)
	}
	if announced {
		s.lg.Info("subscribers have to fetch the account again: the repo was copied or restored since the last start")
	}
	return err
}

// retryUpdateStatus repeats UpdateStatus until it succeeds, and reports whether it
// did before ctx ended.
func (s *Server) retryUpdateStatus(ctx context.Context) bool {
	for wait := statusRetry; s.UpdateStatus(ctx) != nil; wait = min(2*wait, statusRetryTo) {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return false
		}
	}
	return true
}

var errDeactivated = xrpc.NewError(http.StatusUnauthorized, "AccountDeactivated", "Account is deactivated: it has moved to the host in its DID document")

// requireActive refuses methods that need an active account.
func (s *Server) requireActive() error {
	if s.repo.MovedTo() != "" {
		return errDeactivated
	}
	return nil
}

// serves reports whether name, a DID or a handle, identifies an account that is
// active here.
func (s *Server) serves(name string) bool { return s.id.Matches(name) && s.requireActive() == nil }

// status is the status of an account that is not active, as in #account.
func (s *Server) status() string {
	if s.requireActive() == nil {
		return ""
	}
	return "deactivated"
}

// requireReadable refuses a sync method for another repo, and for a deactivated
// account unless its owner calls.
func (s *Server) requireReadable(c *xrpc.Call) error {
	if err := s.requireOwnDID(c); err != nil {
		return err
	}
	if s.requireActive() == nil {
		return nil
	}
	if c.Header.Get("Authorization") != "" {
		return s.sessions.Authorize(c)
	}
	return s.repoDeactivated(c.Param("did"))
}

// requireOwnDID refuses a sync method for another repo.
func (s *Server) requireOwnDID(c *xrpc.Call) error {
	if did := c.Param("did"); did != s.id.DID {
		return xrpc.NewError(http.StatusBadRequest, "RepoNotFound", "Could not find repo for DID: "+did)
	}
	return nil
}

func (s *Server) repoDeactivated(name string) error {
	return xrpc.Errorf(http.StatusBadRequest, "RepoDeactivated", "Repo has been deactivated: %.300s; the account has moved to %s", name, s.repo.MovedTo())
}
