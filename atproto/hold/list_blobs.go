package hold

import (
	"context"

	"github.com/ipfs/go-cid"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

// blobPage is a page of CIDs and the cursor of the next: the last of them.
type blobPage struct {
	Cursor string   `json:"cursor,omitempty"`
	CIDs   []string `json:"cids"`
}

// listBlobs is com.atproto.sync.listBlobs: what records refer to. The older
// range of commits is answered as getRepo does.
func (s *Server) listBlobs(c *xrpc.Call) (any, error) {
	if err := s.readable(c); err != nil {
		return nil, err
	}
	since, err := s.sinceRev(c)
	if err != nil {
		return nil, err
	}
	after, err := cursorCID(c)
	if err != nil {
		return nil, err
	}
	var found []cid.Cid
	list := func(ctx context.Context) (err error) {
		found, err = s.repo.ListBlobs(ctx, since, after, limitParam(c))
		return err
	}
	if since == "" {
		err = list(c.Context())
	} else {
		err = s.placed(c, searchTimeout, list)
	}
	if err != nil {
		return nil, err
	}
	page := blobPage{CIDs: make([]string, len(found))}
	for i, id := range found {
		page.CIDs[i] = id.String()
		page.Cursor = page.CIDs[i]
	}
	return page, nil
}

func limitParam(c *xrpc.Call) int { return int(c.Params["limit"].(int64)) } // the schema has a default

// cursorCID is the member cursor where it is a CID; cid.Undef if not given.
func cursorCID(c *xrpc.Call) (cid.Cid, error) {
	if c.Param("cursor") == "" {
		return cid.Undef, nil
	}
	id, err := cid.Decode(c.Param("cursor"))
	if err != nil {
		return cid.Undef, xrpc.InvalidRequest("Malformed cursor")
	}
	return id, nil
}
