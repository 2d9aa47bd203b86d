package hold

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/tidings-dev/tidings/atproto/auth"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

// A Deletion is the request of an account to have the records about it deleted.
type Deletion struct {
	DID      string
	Unlisted bool   // the operator has not configured the account
	Token    string // ID of the service token, which is valid for one deletion
}

// Calls of deleteUserData count the records of an account, so few run at a time.
const (
	maxUserDeletions  = 4
	userDeletionRetry = 10 * time.Second
)

var errNotDeleted = xrpc.NewError(http.StatusServiceUnavailable, lexicon.ErrorDeletionFailed,
	"the deletion could not be recorded, the operator's log has the reason; call again with a new token")

// deleteUserData is io.atcr.hold.deleteUserData: the caller's account has the records about it
// deleted. The answer is sent when that is durable, before they are.
func (s *Server) deleteUserData(c *xrpc.Call) (any, error) {
	out, err := s.deleteData(c)
	s.network.metrics.callers.Called(err)
	return out, err
}

func (s *Server) deleteData(c *xrpc.Call) (out lexicon.DeletedUserData, err error) {
	if err := s.requireActive(); err != nil {
		return out, err
	}
	caller := c.Caller.(auth.Caller)
	if !s.userDeletions.acquire(caller.DID, maxUserDeletions) {
		return out, xrpc.TooManyRequests(userDeletionRetry)
	}
	defer s.userDeletions.release(caller.DID)
	out, err = s.userData.DeleteData(c.Context(), Deletion{caller.DID, caller.Unlisted, caller.Token})
	var known *xrpc.Error
	if err != nil && !errors.As(err, &known) {
		err = fmt.Errorf("%w: %w", errNotDeleted, err)
	}
	return out, authRequired(err)
}
