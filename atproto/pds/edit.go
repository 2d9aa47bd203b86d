package pds

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/tidings-dev/tidings/atproto/repo"
)

const putRecord = "com.atproto.repo.putRecord"

// putPoints is what a PDS charges for putRecord, whether it creates or updates.
const putPoints = 2

// maxEdits limits how often an edit starts again because another program has
// changed the record since it was read.
const maxEdits = 5

// fields are the members of a record or of an object in it. Members that an edit
// does not change keep the text that the PDS sent, whatever they are.
type fields map[string]json.RawMessage

// edit reads a record, passes its fields to change and, if that reports a change,
// writes them, provided that the record is still the one that was read. A record
// that does not exist has no fields. An edit that lost the race is repeated with
// the new record.
//
// It returns whether the record was written. An error after which that is not
// known has the Outcome Unknown; repeating the edit is harmless.
func (a *Account) edit(ctx context.Context, collection, rkey string, change func(fields) (bool, error)) (bool, error) {
	var err error
	for range maxEdits {
		record, swap, readErr := a.readFields(ctx, collection, rkey)
		if readErr != nil {
			return false, readErr
		}
		changed, changeErr := change(record)
		if changeErr != nil {
			return false, fmt.Errorf("%s/%s: %w", collection, rkey, changeErr)
		}
		if !changed {
			return false, nil
		}
		var e *Error
		if err = a.put(ctx, collection, rkey, record, swap); err == nil || !errors.As(err, &e) || e.Name != "InvalidSwap" {
			return err == nil, err
		}
	}
	return false, fmt.Errorf("%s/%s was changed by another program %d times in a row: %w", collection, rkey, maxEdits, err)
}

// readFields returns a record and its CID, "" if it does not exist.
func (a *Account) readFields(ctx context.Context, collection, rkey string) (fields, string, error) {
	out, err := a.getRecord(ctx, collection, rkey)
	if errors.Is(err, repo.ErrNotFound) {
		return fields{}, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	record, err := object(out.Value)
	if err == nil && out.CID == "" {
		err = errors.New("the record has no CID")
	}
	if err != nil {
		return nil, "", &Error{Method: getRecord, Status: http.StatusOK, Outcome: Unknown, Err: err}
	}
	return record, out.CID, nil
}

// put writes a record in place of the one with the CID swap, or as a new one if
// swap is "".
func (a *Account) put(ctx context.Context, collection, rkey string, record fields, swap string) error {
	a.writing.Lock()
	defer a.writing.Unlock()
	input := struct {
		Repo       string  `json:"repo"`
		Collection string  `json:"collection"`
		RKey       string  `json:"rkey"`
		Record     fields  `json:"record"`
		SwapRecord *string `json:"swapRecord"` // null: the record must not exist
	}{Repo: a.DID(), Collection: collection, RKey: rkey, Record: record}
	if swap != "" {
		input.SwapRecord = &swap
	}
	return a.write(ctx, request{method: putRecord, input: input}, putPoints, Urgent, nil)
}

// object parses a JSON object.
func object(raw json.RawMessage) (fields, error) {
	var f fields
	if err := json.Unmarshal(raw, &f); err != nil {
		return nil, fmt.Errorf("not an object: %w", err)
	}
	if f == nil {
		return nil, errors.New("not an object")
	}
	return f, nil
}

// text returns a member that is a string, and "" for any other.
func (f fields) text(name string) string {
	var s string
	if json.Unmarshal(f[name], &s) != nil {
		return ""
	}
	return s
}

// has reports whether a member is given and not null.
func (f fields) has(name string) bool {
	value, ok := f[name]
	return ok && !bytes.Equal(value, []byte("null"))
}

// set replaces a member by a value that can always be encoded.
func (f fields) set(name string, value any) {
	raw, err := json.Marshal(value)
	if err != nil {
		panic(fmt.Sprintf("encode %s: %v", name, err))
	}
	f[name] = raw
}
