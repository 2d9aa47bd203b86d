package hold

import (
	"errors"

	"github.com/ipfs/go-cid"
	"github.com/tidings-dev/tidings/atproto/mst"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

// deleteRecord is com.atproto.repo.deleteRecord. Deleting what is not there is
// done already.
func (s *Server) deleteRecord(c *xrpc.Call) (any, error) {
	if err := s.ownRepo(c); err != nil {
		return nil, err
	}
	w := repo.Write{Action: repo.Delete, Collection: c.Field("collection"), RKey: c.Field("rkey")}
	if err := mst.CheckPath(w.Collection, w.RKey); err != nil {
		return nil, xrpc.InvalidRequest("Invalid record key (got %.80q) at $.rkey", w.RKey)
	}
	if _, _, err := s.repo.Get(w.Collection, w.RKey); errors.Is(err, repo.ErrNotFound) {
		return struct{}{}, nil // whatever was to be swapped
	}
	var done repo.Result
	wrote, err := s.change(c, w.Collection, w.RKey, func(old []byte, swap *cid.Cid) (bool, error) {
		if old == nil {
			return false, nil
		}
		var err error
		done, err = s.apply(c, []repo.Write{w}, swap)
		return true, err
	})
	if err != nil {
		return nil, err
	}
	if !wrote {
		return struct{}{}, nil
	}
	return struct {
		Commit *commitMeta `json:"commit"`
	}{metaOf(done)}, nil
}
