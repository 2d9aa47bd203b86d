package hold

// getHead is com.atproto.sync.getHead, which getLatestCommit replaced.
func (s *Server) getHead(c *call) (any, error) {
	if err := s.readable(c); err != nil {
		return nil, err
	}
	return map[string]string{"root": s.repo.Head().Commit.String()}, nil
}
