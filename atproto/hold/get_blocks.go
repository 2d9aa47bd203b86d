package hold

import (
	"errors"
	"io"
	"strings"

	"github.com/ipfs/go-cid"
	"github.com/tidings-dev/tidings/atproto/repo"
)

// getBlocks is com.atproto.sync.getBlocks: a CAR without roots. Blocks of
// earlier commits are not kept.
func (s *Server) getBlocks(c *call) (any, error) {
	if err := s.readable(c); err != nil {
		return nil, err
	}
	given, _ := c.params["cids"].([]any)
	cids := make([]cid.Cid, len(given))
	for i, text := range given {
		id, err := cid.Decode(text.(string))
		if err != nil {
			return nil, invalidRequest("Invalid CID string (got %.80q) at $.cids[%d]", text, i)
		}
		cids[i] = id
	}
	return carOf(func(out io.Writer) error {
		err := s.repo.ExportBlocks(out, cids)
		var missing *repo.MissingError
		if errors.As(err, &missing) {
			return invalidRequest("Could not find cids: %s", joinCIDs(missing.CIDs))
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
