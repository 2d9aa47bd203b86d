package hold

import (
	"context"
	"io"
	"time"
)

const (
	exportTimeout = 30 * time.Minute // for a whole getRepo answer
	exportRetry   = 30 * time.Second // what a caller is told to wait when all are taken
)

// getRepo is com.atproto.sync.getRepo. The whole repository answers any since
// but the head's, after which there is nothing.
func (s *Server) getRepo(c *call) (any, error) {
	if err := s.ownDID(c); err != nil {
		return nil, err
	}
	if head := s.repo.Head(); c.param("since") == head.Rev {
		return carOf(func(out io.Writer) error { return writeCAR(out, head.Commit) }), nil
	}
	return carOf(func(out io.Writer) error {
		select {
		case s.exports <- struct{}{}:
			defer func() { <-s.exports }()
		default:
			return s.tooMany(c, exportRetry)
		}
		ctx, cancel := context.WithTimeout(c.Context(), exportTimeout)
		defer cancel()
		return s.repo.Export(ctx, out)
	}), nil
}
