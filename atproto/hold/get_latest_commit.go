package hold

import (
	"net/http"

	"github.com/tidings-dev/tidings/atproto/xrpc"
)

// getLatestCommit is com.atproto.sync.getLatestCommit.
func (s *Server) getLatestCommit(c *xrpc.Call) (any, error) {
	if err := s.readable(c); err != nil {
		return nil, err
	}
	head := s.repo.Head()
	return commitMeta{head.Commit.String(), head.Rev}, nil
}

// ownDID refuses a sync call for another repository.
func (s *Server) ownDID(c *xrpc.Call) error {
	if did := c.Param("did"); did != s.id.DID {
		return xrpc.NewError(http.StatusBadRequest, "RepoNotFound", "Could not find repo for DID: "+did)
	}
	return nil
}
