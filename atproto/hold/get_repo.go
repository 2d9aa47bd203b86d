package hold

import (
	"context"
	"io"
	"time"

	"github.com/tidings-dev/tidings/atproto/xrpc"
	"github.com/tidings-dev/tidings/internal/clientaddr"
)

const (
	exportTimeout = 30 * time.Minute // for a whole repository or blob
	searchTimeout = 10 * time.Second // for what is read to answer another call
	exportRetry   = 30 * time.Second // what a caller is told to wait when all places are taken
)

// getRepo is com.atproto.sync.getRepo. Since a rev that the event log reaches
// back to it is what changed; else the whole repository, which has that too.
func (s *Server) getRepo(c *xrpc.Call) (any, error) {
	if err := s.readable(c); err != nil {
		return nil, err
	}
	since, err := s.sinceRev(c)
	if err != nil {
		return nil, err
	}
	return s.export(c, exportTimeout, func(ctx context.Context, out io.Writer) error {
		if since == "" {
			return s.repo.Export(ctx, out)
		}
		return s.repo.ExportSince(ctx, out, since)
	}), nil
}

// export streams a CAR in one of the few places there are, within a time.
func (s *Server) export(c *xrpc.Call, most time.Duration, write func(context.Context, io.Writer) error) xrpc.Stream {
	return carOf(func(out io.Writer) error {
		return s.placed(c, most, func(ctx context.Context) error {
			return write(ctx, untilDone{ctx, out})
		})
	})
}

// placed runs what reads much in one of the few places there are, within a time.
func (s *Server) placed(c *xrpc.Call, most time.Duration, read func(context.Context) error) error {
	client := clientaddr.Of(c.Request)
	if !s.exports.Take(client) {
		return xrpc.TooManyRequests(exportRetry)
	}
	defer s.exports.Give(client)
	ctx, cancel := context.WithTimeout(c.Context(), most)
	defer cancel()
	return read(ctx)
}

// untilDone writes until its context ends. A client that reads slowly may hold
// up one write for longer, by the time limit that each has.
type untilDone struct {
	ctx context.Context
	io.Writer
}

func (w untilDone) Write(b []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.Writer.Write(b)
}
