package hold

import (
	"context"
	"io"
	"time"

	"github.com/tidings-dev/tidings/internal/clientaddr"
)

const (
	exportTimeout = 30 * time.Minute // for a whole getRepo answer
	exportRetry   = 30 * time.Second // what a caller is told to wait when all are taken
)

// getRepo is com.atproto.sync.getRepo. Since a rev that the event log reaches
// back to it is what changed; else the whole repository, which has that too.
func (s *Server) getRepo(c *call) (any, error) {
	if err := s.readable(c); err != nil {
		return nil, err
	}
	since, err := s.sinceRev(c)
	if err != nil {
		return nil, err
	}
	return s.export(c, func(ctx context.Context, out io.Writer) error {
		if since == "" {
			return s.repo.Export(ctx, out)
		}
		return s.repo.ExportSince(ctx, out, since)
	}), nil
}

// export streams a CAR in one of the few slots there are.
func (s *Server) export(c *call, write func(context.Context, io.Writer) error) stream {
	return carOf(func(out io.Writer) error {
		client := clientaddr.Of(c.Request)
		if !s.exports.Take(client) {
			return s.tooMany(c, exportRetry)
		}
		defer s.exports.Give(client)
		ctx, cancel := context.WithTimeout(c.Context(), exportTimeout)
		defer cancel()
		return write(ctx, out)
	})
}
