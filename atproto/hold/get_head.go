package hold

import "github.com/tidings-dev/tidings/atproto/xrpc"

// getHead is com.atproto.sync.getHead, which getLatestCommit replaced.
func (s *Server) getHead(c *xrpc.Call) (any, error) {
	if err := s.readable(c); err != nil {
		return nil, err
	}
	return map[string]string{"root": s.repo.Head().Commit.String()}, nil
}
