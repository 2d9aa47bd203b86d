package hold

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/ipfs/go-cid"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

// recordView is a record as getRecord and listRecords show it.
type recordView struct {
	URI   string          `json:"uri"`
	CID   string          `json:"cid"`
	Value json.RawMessage `json:"value"`
}

// getRecord is com.atproto.repo.getRecord.
func (s *Server) getRecord(c *xrpc.Call) (any, error) {
	if !s.has(c.Param("repo")) {
		return nil, xrpc.InvalidRequest("Could not locate record")
	}
	collection, rkey := c.Param("collection"), c.Param("rkey")
	found, cbor, err := s.repo.Get(collection, rkey)
	if errors.Is(err, repo.ErrNotFound) || err == nil && c.Param("cid") != "" && c.Param("cid") != found.String() {
		return nil, xrpc.NewError(http.StatusBadRequest, "RecordNotFound", "Could not locate record: "+s.uri(collection, rkey))
	}
	if err != nil {
		return nil, err
	}
	return s.view(collection, rkey, found, cbor)
}

func (s *Server) view(collection, rkey string, found cid.Cid, cbor []byte) (recordView, error) {
	value, err := lexicon.ToJSON(cbor)
	return recordView{s.uri(collection, rkey), found.String(), value}, err
}
