package hold

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/ipfs/go-cid"
	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

// describeRepo is com.atproto.repo.describeRepo.
func (s *Server) describeRepo(c *xrpc.Call) (any, error) {
	if !s.id.Matches(c.Param("repo")) {
		return nil, xrpc.Errorf(http.StatusBadRequest, "RepoNotFound", "Could not find repo for DID: %.300s", c.Param("repo"))
	}
	if s.requireActive() != nil {
		return nil, s.repoDeactivated(c.Param("repo"))
	}
	collections, err := s.repo.Collections()
	if err != nil {
		return nil, err
	}
	if collections == nil {
		collections = []string{}
	}
	return struct {
		Handle          string            `json:"handle"`
		DID             string            `json:"did"`
		DIDDoc          identity.Document `json:"didDoc"`
		Collections     []string          `json:"collections"`
		HandleIsCorrect bool              `json:"handleIsCorrect"`
	}{s.id.Handle, s.id.DID, s.doc, collections, s.id.Handle != identity.HandleInvalid}, nil
}

// recordView is a record in the results of getRecord and listRecords.
type recordView struct {
	URI   string          `json:"uri"`
	CID   string          `json:"cid"`
	Value json.RawMessage `json:"value"`
}

func (s *Server) recordView(collection, rkey string, id cid.Cid, cbor []byte) (recordView, error) {
	value, err := lexicon.ToJSON(cbor)
	return recordView{s.uri(collection, rkey), id.String(), value}, err
}

// getRecord is com.atproto.repo.getRecord.
func (s *Server) getRecord(c *xrpc.Call) (any, error) {
	if !s.serves(c.Param("repo")) {
		return nil, xrpc.InvalidRequest("Could not locate record")
	}
	collection, rkey := c.Param("collection"), c.Param("rkey")
	id, cbor, err := s.repo.Get(collection, rkey)
	if errors.Is(err, repo.ErrNotFound) || err == nil && c.Param("cid") != "" && c.Param("cid") != id.String() {
		return nil, xrpc.NewError(http.StatusBadRequest, "RecordNotFound", "Could not locate record: "+s.uri(collection, rkey))
	}
	if err != nil {
		return nil, err
	}
	return s.recordView(collection, rkey, id, cbor)
}

// listRecords is com.atproto.repo.listRecords. A page may be shorter than its
// limit; it is the last one if it has no cursor.
func (s *Server) listRecords(c *xrpc.Call) (any, error) {
	if !s.serves(c.Param("repo")) {
		return nil, xrpc.InvalidRequest("Could not find repo: %.300s", c.Param("repo"))
	}
	collection := c.Param("collection")
	reverse, _ := c.Params["reverse"].(bool)
	records, next, err := s.repo.List(collection, c.Param("cursor"), limitParam(c), reverse)
	if err != nil {
		return nil, err
	}
	page := struct {
		Cursor  string       `json:"cursor,omitempty"`
		Records []recordView `json:"records"`
	}{next, make([]recordView, len(records))}
	for i, r := range records {
		if page.Records[i], err = s.recordView(collection, r.RKey, r.CID, r.Value); err != nil {
			return nil, err
		}
	}
	return page, nil
}

// limitParam returns the parameter limit, for which schemas have a default.
func limitParam(c *xrpc.Call) int { return int(c.Params["limit"].(int64)) }

// resolveHandle is com.atproto.identity.resolveHandle for the account's handle.
func (s *Server) resolveHandle(c *xrpc.Call) (any, error) {
	if s.id.Handle == identity.HandleInvalid || !strings.EqualFold(c.Param("handle"), s.id.Handle) {
		return nil, xrpc.NewError(http.StatusBadRequest, "HandleNotFound", "Unable to resolve handle")
	}
	return map[string]string{"did": s.id.DID}, nil
}
