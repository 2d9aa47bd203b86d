package hold

import (
	"net/http"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

// Quotas has the usage and the limits of owners. It is safe for concurrent use.
type Quotas interface {
	// Quota returns the usage of an owner, zero if there are no records of the owner's. It
	// must only depend on records, which everybody may read, and be cheap.
	Quota(owner string) (lexicon.Quota, error)
}

// getQuota is io.atcr.hold.getQuota. Everybody may ask, since what counts are records.
func (s *Server) getQuota(c *xrpc.Call) (any, error) {
	did, err := syntax.ParseDID(c.Param("userDid"))
	if err != nil {
		return nil, xrpc.NewError(http.StatusBadRequest, lexicon.ErrorInvalidUserDid, "userDid is not a DID")
	}
	return s.quotas.Quota(did.String())
}
