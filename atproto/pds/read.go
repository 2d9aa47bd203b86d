package pds

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/guard"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
)

// pageLimit is how many records the reference PDS lists in one call.
const pageLimit = 100

// read makes a query about the repo. It carries the session: a PDS may show the
// repo of an inactive account to nobody else.
func (a *Account) read(ctx context.Context, method string, query url.Values, out any) error {
	if err := a.Resolve(ctx); err != nil {
		return err
	}
	_, err := a.authorized(ctx, request{method: method, query: query, repo: true}, out)
	return err
}

type recordOutput struct {
	URI   string          `json:"uri"`
	CID   string          `json:"cid"`
	Value json.RawMessage `json:"value"`
}

// record converts a record to DAG-CBOR. Value is nil if it is not one of the data
// model, which is nothing that this program writes.
func (o recordOutput) record() (repo.Record, error) {
	stored, err := cid.Decode(o.CID)
	if err != nil {
		return repo.Record{}, fmt.Errorf("record %s has the CID %q: %w", guard.Printable(o.URI, 100), guard.Printable(o.CID, 100), err)
	}
	value, _ := lexicon.FromJSON(o.Value)
	return repo.Record{RKey: o.URI[strings.LastIndexByte(o.URI, '/')+1:], CID: stored, Value: value}, nil
}

const getRecord = "com.atproto.repo.getRecord"

// Get returns a record, or repo.ErrNotFound.
func (a *Account) Get(ctx context.Context, collection, rkey string) (cid.Cid, []byte, error) {
	out, err := a.getRecord(ctx, collection, rkey)
	if err != nil {
		return cid.Undef, nil, err
	}
	r, err := out.record()
	if err != nil {
		return cid.Undef, nil, &Error{Method: getRecord, Status: http.StatusOK, Outcome: Unknown, Err: err}
	}
	return r.CID, r.Value, nil
}

// getRecord returns a record as the PDS sent it, or repo.ErrNotFound.
func (a *Account) getRecord(ctx context.Context, collection, rkey string) (recordOutput, error) {
	if err := a.Resolve(ctx); err != nil {
		return recordOutput{}, err
	}
	var out recordOutput
	err := a.read(ctx, getRecord, url.Values{"repo": {a.DID()}, "collection": {collection}, "rkey": {rkey}}, &out)
	var e *Error
	if errors.As(err, &e) && (e.Name == "RecordNotFound" || e.Status == http.StatusBadRequest && strings.HasPrefix(e.Message, "Could not locate record")) {
		return recordOutput{}, repo.ErrNotFound
	}
	return out, err
}

// List returns up to limit records of a collection, the highest key first, with
// reverse the lowest first, and the cursor of the next page, "" if there is none.
// At the reference PDS a cursor is a record key.
func (a *Account) List(ctx context.Context, collection, cursor string, limit int, reverse bool) (records []repo.Record, next string, err error) {
	const method = "com.atproto.repo.listRecords"
	if err := a.Resolve(ctx); err != nil {
		return nil, "", err
	}
	for {
		query := url.Values{"repo": {a.DID()}, "collection": {collection}, "limit": {strconv.Itoa(min(limit-len(records), pageLimit))}}
		if cursor != "" {
			query.Set("cursor", cursor)
		}
		if reverse {
			query.Set("reverse", "true")
		}
		var out struct {
			Cursor  string         `json:"cursor"`
			Records []recordOutput `json:"records"`
		}
		if err := a.read(ctx, method, query, &out); err != nil {
			return nil, "", err
		}
		for _, o := range out.Records {
			r, err := o.record()
			if err != nil {
				return nil, "", &Error{Method: method, Status: http.StatusOK, Outcome: Unknown, Err: err}
			}
			records = append(records, r)
		}
		if out.Cursor == "" || len(out.Records) == 0 {
			return records, "", nil
		}
		if cursor = out.Cursor; len(records) >= limit {
			return records, cursor, nil
		}
	}
}

// Rev returns the revision of the repo's last commit, a TID.
func (a *Account) Rev(ctx context.Context) (string, error) {
	if err := a.Resolve(ctx); err != nil {
		return "", err
	}
	var out struct {
		Rev string `json:"rev"`
	}
	err := a.read(ctx, "com.atproto.sync.getLatestCommit", url.Values{"did": {a.DID()}}, &out)
	return out.Rev, err
}
