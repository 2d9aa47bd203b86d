package hold

// getRepoStatus is com.atproto.sync.getRepoStatus.
func (s *Server) getRepoStatus(c *call) (any, error) {
	if err := s.ownDID(c); err != nil {
		return nil, err
	}
	return map[string]any{"did": s.id.DID, "active": true, "rev": s.repo.Head().Rev}, nil
}
