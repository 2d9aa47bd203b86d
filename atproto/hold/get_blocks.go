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
)

// What one getBlocks call may ask for. The reference server takes about as many
// CIDs, since it takes no longer URLs.
const (
	maxBlocks     = 250
	maxBlockBytes = 4 << 20
	blocksTimeout = 5 * time.Minute // for a whole answer
)

// getBlocks is com.atproto.sync.getBlocks: a CAR without roots. Blocks of
// earlier commits are not kept.
func (s *Server) getBlocks(c *xrpc.Call) (any, error) {
	if err := s.readable(c); err != nil {
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
			return xrpc.InvalidRequest("The blocks have more than %d bytes together: ask for fewer at a time", maxBlockBytes)
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
