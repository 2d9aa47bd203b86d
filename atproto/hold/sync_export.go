package hold

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/atproto/xrpc"
	"github.com/tidings-dev/tidings/internal/clientaddr"
)

// maxExports limits the long reads in progress, half of them for one client. Each
// keeps a snapshot of the repo open for as long as its client reads.
const maxExports = 4

const (
	exportTimeout = 30 * time.Minute // for a whole repo or blob
	blocksTimeout = 5 * time.Minute  // for the blocks of one request
	searchTimeout = 10 * time.Second // for reading the event log
	exportRetry   = 30 * time.Second // Retry-After when all slots are in use
)

// Limits of one getBlocks request. The reference server accepts about as many
// CIDs, as it limits the length of URLs.
const (
	maxBlocks     = 250
	maxBlockBytes = 4 << 20
)

// getRepo is com.atproto.sync.getRepo. With a since that the event log reaches
// back to, the result has the blocks that changed; otherwise the whole repo, which
// includes them.
func (s *Server) getRepo(c *xrpc.Call) (any, error) {
	if err := s.requireReadable(c); err != nil {
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

// getCheckout is com.atproto.sync.getCheckout, the predecessor of getRepo: the
// whole repo as of the head. Other commits are not kept.
func (s *Server) getCheckout(c *xrpc.Call) (any, error) {
	if err := s.requireReadable(c); err != nil {
		return nil, err
	}
	if err := s.requireHead(c, "commit"); err != nil {
		return nil, err
	}
	return s.export(c, exportTimeout, s.repo.Export), nil
}

// getBlocks is com.atproto.sync.getBlocks: a CAR without roots. Blocks of earlier
// commits are not kept.
func (s *Server) getBlocks(c *xrpc.Call) (any, error) {
	if err := s.requireReadable(c); err != nil {
		return nil, err
	}
	given, _ := c.Params["cids"].([]any)
	if len(given) > maxBlocks {
		return nil, xrpc.InvalidRequest("Too many cids. Max: %d", maxBlocks)
	}
	cids := make([]cid.Cid, len(given))
	for i, text := range given {
		id, err := cid.Decode(text.(string))
		if err != nil {
			return nil, xrpc.InvalidRequest("Invalid CID string (got %.80q) at $.cids[%d]", text, i)
		}
		cids[i] = id
	}
	return s.export(c, blocksTimeout, func(ctx context.Context, out io.Writer) error {
		err := s.repo.ExportBlocks(ctx, out, cids, maxBlockBytes)
		var missing *repo.MissingError
		switch {
		case errors.As(err, &missing):
			return xrpc.InvalidRequest("Could not find cids: %s", joinCIDs(missing.CIDs))
		case errors.Is(err, repo.ErrTooLarge):
			return xrpc.InvalidRequest("The blocks have more than %d bytes in total: request fewer at a time", maxBlockBytes)
		}
		return err
	}), nil
}

func joinCIDs(cids []cid.Cid) string {
	texts := make([]string, len(cids))
	for i, id := range cids {
		texts[i] = id.String()
	}
	return strings.Join(texts, ",")
}

func carStream(write func(io.Writer) error) xrpc.Stream {
	return xrpc.Stream{ContentType: "application/vnd.ipld.car", Write: write}
}

// export returns a CAR that is written in an export slot and within a time.
func (s *Server) export(c *xrpc.Call, limit time.Duration, write func(context.Context, io.Writer) error) xrpc.Stream {
	return carStream(func(out io.Writer) error {
		return s.inSlot(c, limit, func(ctx context.Context) error {
			return write(ctx, contextWriter{ctx, out})
		})
	})
}

// inSlot runs a long read in an export slot and within a time.
func (s *Server) inSlot(c *xrpc.Call, limit time.Duration, read func(context.Context) error) error {
	client := clientaddr.Of(c.Request)
	if !s.exports.Acquire(client) {
		return xrpc.TooManyRequests(exportRetry)
	}
	defer s.exports.Release(client)
	ctx, cancel := context.WithTimeout(c.Context(), limit)
	defer cancel()
	return read(ctx)
}

// contextWriter fails once its context has ended. A single write to a slow client
// may take longer, up to the HTTP server's own limit.
type contextWriter struct {
	ctx context.Context
	io.Writer
}

func (w contextWriter) Write(b []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.Writer.Write(b)
}

// sinceRev is the rev from which a client wants changes: since, or the rev of the
// commit in the older parameter earliest. The older latest has to be the head.
func (s *Server) sinceRev(c *xrpc.Call) (string, error) {
	if err := s.requireHead(c, "latest"); err != nil {
		return "", err
	}
	earliest, err := cidParam(c, "earliest")
	if err != nil || !earliest.Defined() {
		return c.Param("since"), err
	}
	if c.Param("since") != "" {
		return "", xrpc.InvalidRequest("since and earliest exclude each other")
	}
	var rev string
	err = s.inSlot(c, searchTimeout, func(ctx context.Context) (err error) {
		rev, err = s.repo.RevOf(ctx, earliest)
		return err
	})
	return rev, notKept(err)
}

func notKept(err error) error {
	if errors.Is(err, repo.ErrNotKept) {
		return xrpc.InvalidRequest("%v: getRepo without earliest returns the whole repo", err)
	}
	return err
}

// requireHead refuses a parameter that names another commit than the head, so
// that the client does not take one for the other.
func (s *Server) requireHead(c *xrpc.Call, name string) error {
	id, err := cidParam(c, name)
	if err != nil {
		return err
	}
	if head := s.repo.Head().Commit; id.Defined() && id != head {
		return xrpc.InvalidRequest("The repo is kept as of its head only, %s: omit %s", head, name)
	}
	return nil
}

// cidParam returns a parameter that is a CID; cid.Undef if it is not given.
func cidParam(c *xrpc.Call, name string) (cid.Cid, error) {
	if c.Param(name) == "" {
		return cid.Undef, nil
	}
	id, err := cid.Decode(c.Param(name))
	if err != nil {
		return cid.Undef, xrpc.InvalidRequest("Invalid CID string (got %.80q) at $.%s", c.Param(name), name)
	}
	return id, nil
}
