package hold

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/mst"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

const (
	applyTimeout       = 30 * time.Second
	defaultImportLimit = 256 << 20 // bytes
)

// MaxBody is the size of the largest request body that any method accepts by
// default, in bytes.
const MaxBody = defaultImportLimit

// applyResult is one of applyWrites#createResult, #updateResult and #deleteResult.
type applyResult struct {
	Type             string `json:"$type"`
	URI              string `json:"uri,omitempty"`
	CID              string `json:"cid,omitempty"`
	ValidationStatus string `json:"validationStatus,omitempty"`
}

// applyWrites is com.atproto.repo.applyWrites: all writes in one commit, or none.
func (s *Server) applyWrites(c *xrpc.Call) (any, error) {
	if err := s.requireOwnRepo(c); err != nil {
		return nil, err
	}
	swap, err := cidField(c, "swapCommit")
	if err != nil {
		return nil, err
	}
	given := c.Input["writes"].([]any) // required by the schema
	if len(given) > repo.MaxWrites {
		return nil, xrpc.InvalidRequest("Too many writes. Max: %d", repo.MaxWrites)
	}
	writes := make([]repo.Write, len(given))
	results := make([]applyResult, len(given))
	for i, one := range given {
		if writes[i], results[i], err = s.readWrite(one.(map[string]any), validationOf(c)); err != nil {
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

// readWrite reads an applyWrites#create, #update or #delete.
func (s *Server) readWrite(one map[string]any, v validation) (w repo.Write, r applyResult, err error) {
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

// atWrite adds the index of a write to its error.
func atWrite(err error, i int) error {
	var known *xrpc.Error
	if !errors.As(err, &known) {
		return err
	}
	return xrpc.Errorf(known.Status, known.Name, "%s at $.writes[%d]", known.Message, i)
}

// recordResult is the result of createRecord and putRecord. A put that changes
// nothing has no commit.
type recordResult struct {
	URI              string      `json:"uri"`
	CID              string      `json:"cid"`
	Commit           *commitMeta `json:"commit,omitempty"`
	ValidationStatus string      `json:"validationStatus,omitempty"`
}

// readRecord reads the input that createRecord and putRecord have in common.
func (s *Server) readRecord(c *xrpc.Call, rkey string) (w repo.Write, r recordResult, err error) {
	if err := s.requireOwnRepo(c); err != nil {
		return w, r, err
	}
	w = repo.Write{Collection: c.Field("collection"), RKey: rkey}
	if err := validKey(w); err != nil {
		return w, r, err
	}
	record, _ := c.Input["record"].(map[string]any)
	w.Record, r.ValidationStatus, err = validationOf(c).encode(w.Collection, w.RKey, record)
	r.URI = s.uri(w.Collection, w.RKey)
	return w, r, err
}

func validKey(w repo.Write) error {
	if mst.CheckPath(w.Collection, w.RKey) != nil {
		return xrpc.InvalidRequest("Invalid record key (got %.80q) at $.rkey", w.RKey)
	}
	return nil
}

// createRecord is com.atproto.repo.createRecord.
func (s *Server) createRecord(c *xrpc.Call) (any, error) {
	rkey, given := c.Input["rkey"].(string)
	if !given {
		rkey = s.newKey()
	}
	w, result, err := s.readRecord(c, rkey)
	if err != nil {
		return nil, err
	}
	swap, err := cidField(c, "swapCommit")
	if err != nil {
		return nil, err
	}
	w.Action = repo.Create
	done, err := s.apply(c, []repo.Write{w}, swap)
	if err != nil {
		return nil, err
	}
	result.CID, result.Commit = done.CIDs[0].String(), metaOf(done)
	return result, nil
}

// putRecord is com.atproto.repo.putRecord: create or update. If the record has the
// given content already, there is no commit and swaps are not checked.
func (s *Server) putRecord(c *xrpc.Call) (any, error) {
	w, result, err := s.readRecord(c, c.Field("rkey"))
	if err != nil {
		return nil, err
	}
	result.CID = block.CIDOf(w.Record).String()
	if _, old, err := s.repo.Get(w.Collection, w.RKey); err == nil && bytes.Equal(old, w.Record) {
		return result, nil
	}
	done, err := s.change(c, w.Collection, w.RKey, func(old []byte) (repo.Write, bool) {
		w.Action = repo.Update
		if old == nil {
			w.Action = repo.Create
		}
		return w, !bytes.Equal(old, w.Record)
	})
	result.Commit = done
	return result, err
}

// deleteRecord is com.atproto.repo.deleteRecord. Deleting a record that does not
// exist succeeds without a commit, and swaps are not checked.
func (s *Server) deleteRecord(c *xrpc.Call) (any, error) {
	if err := s.requireOwnRepo(c); err != nil {
		return nil, err
	}
	w := repo.Write{Action: repo.Delete, Collection: c.Field("collection"), RKey: c.Field("rkey")}
	if err := validKey(w); err != nil {
		return nil, err
	}
	var result struct {
		Commit *commitMeta `json:"commit,omitempty"`
	}
	_, _, err := s.repo.Get(w.Collection, w.RKey)
	if errors.Is(err, repo.ErrNotFound) {
		return result, nil
	}
	result.Commit, err = s.change(c, w.Collection, w.RKey, func(old []byte) (repo.Write, bool) { return w, old != nil })
	return result, err
}

// maxChangeAttempts limits how often a change is tried again because another
// commit came first.
const maxChangeAttempts = 20

// change reads a record, checks swapRecord and swapCommit, and applies the write
// that plan returns for the record, on top of the head that was read; old is nil
// if the record does not exist. If another commit comes first, it starts again,
// unless the client has given swapCommit. It returns nil if plan writes nothing.
func (s *Server) change(c *xrpc.Call, collection, rkey string, plan func(old []byte) (w repo.Write, write bool)) (*commitMeta, error) {
	swap, err := cidField(c, "swapCommit")
	if err != nil {
		return nil, err
	}
	for range maxChangeAttempts {
		head := s.repo.Head().Commit
		if swap != nil && *swap != head {
			return nil, &repo.SwapError{Head: head}
		}
		id, old, err := s.repo.Get(collection, rkey)
		if err != nil && !errors.Is(err, repo.ErrNotFound) {
			return nil, err
		}
		if err := checkSwapRecord(c, id); err != nil {
			return nil, err
		}
		w, write := plan(old)
		if !write {
			return nil, nil
		}
		done, err := s.apply(c, []repo.Write{w}, &head)
		var conflict *repo.SwapError
		switch {
		case err == nil:
			return metaOf(done), nil
		case !errors.As(err, &conflict) || swap != nil:
			return nil, err
		}
	}
	return nil, xrpc.Unavailable("too many concurrent writes: try again")
}

// checkSwapRecord compares the member swapRecord, a CID or null for no record,
// with the record's CID.
func checkSwapRecord(c *xrpc.Call, is cid.Cid) error {
	value, given := c.Input["swapRecord"]
	if !given {
		return nil
	}
	want, err := cidField(c, "swapRecord")
	if err != nil {
		return err
	}
	switch {
	case value == nil && !is.Defined(), want != nil && *want == is:
		return nil
	case !is.Defined():
		return invalidSwap("Record was at null")
	}
	return invalidSwap("Record was at " + is.String())
}

// importRepo is com.atproto.repo.importRepo: the repo gets the content of the CAR.
func (s *Server) importRepo(c *xrpc.Call) (any, error) {
	if err := s.requireActive(); err != nil {
		return nil, err
	}
	if err := c.RequireBody(); err != nil {
		return nil, err
	}
	if err := c.RequireMediaType("application/vnd.ipld.car"); err != nil {
		return nil, err
	}
	err := s.upload(c, s.importLimit, func(body io.Reader) error {
		_, err := s.repo.Import(c.Context(), body, s.importLimit)
		return err
	})
	switch {
	case errors.Is(err, repo.ErrTooLarge):
		return nil, xrpc.ErrUploadTooLarge
	case errors.Is(err, repo.ErrInvalidCAR):
		return nil, xrpc.InvalidRequest("%v", err)
	}
	return xrpc.Empty{}, err
}

// apply writes one commit.
func (s *Server) apply(c *xrpc.Call, writes []repo.Write, swap *cid.Cid) (repo.Result, error) {
	ctx, cancel := context.WithTimeout(c.Context(), applyTimeout)
	defer cancel()
	return s.repo.Apply(ctx, writes, swap)
}

// commitMeta is com.atproto.repo.defs#commitMeta.
type commitMeta struct {
	CID string `json:"cid"`
	Rev string `json:"rev"`
}

func metaOf(r repo.Result) *commitMeta { return &commitMeta{r.Commit.String(), r.Rev} }

// requireOwnRepo refuses input for another repo, or for an account that is not
// active here.
func (s *Server) requireOwnRepo(c *xrpc.Call) error {
	if !s.id.Matches(c.Field("repo")) {
		return xrpc.NewError(http.StatusForbidden, "AccountNotFound", "Account not found")
	}
	return s.requireActive()
}

// cidField returns a member of the input that is a CID; nil if it is not given or
// null.
func cidField(c *xrpc.Call, name string) (*cid.Cid, error) {
	text := c.Field(name)
	if text == "" {
		return nil, nil
	}
	parsed, err := cid.Decode(text)
	if err != nil {
		return nil, xrpc.InvalidRequest("Invalid CID string (got %.80q) at $.%s", text, name)
	}
	return &parsed, nil
}
