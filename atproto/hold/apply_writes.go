package hold

import (
	"errors"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/mst"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

// maxWrites is how many writes a commit may have, by the rules of the network.
const maxWrites = 200

// applyResult is one of #createResult, #updateResult and #deleteResult.
type applyResult struct {
	Type             string `json:"$type"`
	URI              string `json:"uri,omitempty"`
	CID              string `json:"cid,omitempty"`
	ValidationStatus string `json:"validationStatus,omitempty"`
}

// applyWrites is com.atproto.repo.applyWrites: all writes in one commit, or
// none.
func (s *Server) applyWrites(c *xrpc.Call) (any, error) {
	if err := s.ownRepo(c); err != nil {
		return nil, err
	}
	swap, err := swapCID(c, "swapCommit")
	if err != nil {
		return nil, err
	}
	given := c.Input["writes"].([]any) // the schema was checked before
	if len(given) > maxWrites {
		return nil, xrpc.InvalidRequest("Too many writes. Max: %d", maxWrites)
	}
	writes := make([]repo.Write, len(given))
	results := make([]applyResult, len(given))
	for i, one := range given {
		if writes[i], results[i], err = s.planWrite(one.(map[string]any), validationOf(c)); err != nil {
			return nil, atWrite(err, i)
		}
	}
	done, err := s.apply(c, writes, swap)
	if err != nil {
		return nil, err
	}
	for i := range results {
		if writes[i].Action != repo.Delete {
			results[i].CID = done.CIDs[i].String()
		}
	}
	return struct {
		Commit  *commitMeta   `json:"commit"`
		Results []applyResult `json:"results"`
	}{metaOf(done), results}, nil
}

// planWrite reads one #create, #update or #delete.
func (s *Server) planWrite(one map[string]any, v validation) (w repo.Write, r applyResult, err error) {
	const name = lexicon.NSIDApplyWrites
	w.Collection, _ = one["collection"].(string)
	w.RKey, _ = one["rkey"].(string)
	switch one["$type"] {
	case name + "#create":
		w.Action, r.Type = repo.Create, name+"#createResult"
		if _, given := one["rkey"]; !given {
			w.RKey = s.newKey()
		}
	case name + "#update":
		w.Action, r.Type = repo.Update, name+"#updateResult"
	case name + "#delete":
		w.Action, r.Type = repo.Delete, name+"#deleteResult"
	}
	if err := mst.CheckPath(w.Collection, w.RKey); err != nil {
		return w, r, xrpc.InvalidRequest("Invalid record key (got %.80q)", w.RKey)
	}
	if w.Action == repo.Delete {
		return w, r, nil
	}
	value, _ := one["value"].(map[string]any)
	w.Record, r.ValidationStatus, err = v.encode(w.Collection, w.RKey, value)
	r.URI = s.uri(w.Collection, w.RKey)
	return w, r, err
}

// atWrite says which of a call's writes an error is about.
func atWrite(err error, i int) error {
	var known *xrpc.Error
	if !errors.As(err, &known) {
		return err
	}
	return xrpc.Errorf(known.Status, known.Name, "%s at $.writes[%d]", known.Message, i)
}
