package hold

import (
	"github.com/ipfs/go-cid"
	"github.com/tidings-dev/tidings/atproto/mst"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

// recordAnswer is what createRecord and putRecord tell of what they wrote. A
// put that changes nothing makes no commit.
type recordAnswer struct {
	URI              string      `json:"uri"`
	CID              string      `json:"cid"`
	Commit           *commitMeta `json:"commit,omitempty"`
	ValidationStatus string      `json:"validationStatus,omitempty"`
}

// createRecord is com.atproto.repo.createRecord.
func (s *Server) createRecord(c *xrpc.Call) (any, error) {
	rkey, given := c.Input["rkey"].(string)
	if !given {
		rkey = s.newKey()
	}
	w, answer, err := s.planRecord(c, rkey)
	if err != nil {
		return nil, err
	}
	swap, err := swapCID(c, "swapCommit")
	if err != nil {
		return nil, err
	}
	w.Action = repo.Create
	done, err := s.apply(c, []repo.Write{w}, swap)
	if err != nil {
		return nil, err
	}
	return answer.written(done.CIDs[0], metaOf(done)), nil
}

// planRecord reads what createRecord and putRecord have in common.
func (s *Server) planRecord(c *xrpc.Call, rkey string) (w repo.Write, answer recordAnswer, err error) {
	if err := s.ownRepo(c); err != nil {
		return w, answer, err
	}
	w = repo.Write{Collection: c.Field("collection"), RKey: rkey}
	if err := mst.CheckPath(w.Collection, w.RKey); err != nil {
		return w, answer, xrpc.InvalidRequest("Invalid record key (got %.80q) at $.rkey", rkey)
	}
	record, _ := c.Input["record"].(map[string]any)
	w.Record, answer.ValidationStatus, err = validationOf(c).encode(w.Collection, w.RKey, record)
	answer.URI = s.uri(w.Collection, w.RKey)
	return w, answer, err
}

func (a recordAnswer) written(record cid.Cid, commit *commitMeta) recordAnswer {
	a.CID, a.Commit = record.String(), commit
	return a
}
