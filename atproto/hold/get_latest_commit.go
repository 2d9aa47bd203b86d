package hold

import "net/http"

// getLatestCommit is com.atproto.sync.getLatestCommit.
func (s *Server) getLatestCommit(c *call) (any, error) {
	if err := s.readable(c); err != nil {
		return nil, err
	}
	head := s.repo.Head()
	return commitMeta{head.Commit.String(), head.Rev}, nil
}

// ownDID refuses a sync call for another repository.
func (s *Server) ownDID(c *call) error {
	if did := c.param("did"); did != s.id.DID {
		return &Error{http.StatusBadRequest, "RepoNotFound", "Could not find repo for DID: " + did}
	}
	return nil
}
