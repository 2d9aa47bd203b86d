package pds

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"

	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
)

const applyWrites = "com.atproto.repo.applyWrites"

// maxInput is how many bytes of JSON the reference PDS takes; its 0.4 versions
// take 150 KiB. A PDS that refuses less lowers the limit while the process runs.
const maxInput = 1_000_000

// Apply makes the writes in one commit, all or none. The priority says which part of
// the budget they may use. With swap the head must be that commit.
//
// A *repo.WriteError names the write for which the PDS refused the call. Any
// other error is an *Error: after Unknown it is not known whether the writes were
// made, after all others they were not.
func (a *Account) Apply(ctx context.Context, writes []repo.Write, swap *cid.Cid, p Priority) (repo.Result, error) {
	a.writing.Lock()
	defer a.writing.Unlock()
	if err := a.Resolve(ctx); err != nil {
		return repo.Result{}, err
	}
	input, err := writesInput(a.DID(), writes, swap)
	if err != nil {
		return repo.Result{}, err
	}
	if len(input) > a.inputLimit() {
		return repo.Result{}, &Error{Method: applyWrites, Outcome: TooLarge, Err: fmt.Errorf("%d writes have %d bytes, and the limit is %d", len(writes), len(input), a.inputLimit())}
	}
	var out struct {
		Commit struct {
			CID string `json:"cid"`
			Rev string `json:"rev"`
		} `json:"commit"`
		Results []struct {
			CID string `json:"cid"`
		} `json:"results"`
	}
	if err := a.write(ctx, request{method: applyWrites, input: json.RawMessage(input)}, cost(writes), p, &out); err != nil {
		return repo.Result{}, a.refused(err, writes, len(input))
	}
	if len(out.Results) != len(writes) {
		return repo.Result{}, &Error{Method: applyWrites, Status: 200, Outcome: Unknown, Err: fmt.Errorf("the answer has %d results for %d writes", len(out.Results), len(writes))}
	}
	result := repo.Result{Rev: out.Commit.Rev, CIDs: make([]cid.Cid, len(writes))}
	result.Commit, _ = cid.Decode(out.Commit.CID) // other PDSs may leave it out
	for i, w := range writes {
		if w.Action == repo.Delete {
			continue
		}
		stored, err := cid.Decode(out.Results[i].CID)
		if err != nil {
			return repo.Result{}, &Error{Method: applyWrites, Status: 200, Outcome: Unknown, Err: fmt.Errorf("result %d has no CID: %w", i, err)}
		}
		result.CIDs[i] = stored
	}
	return result, nil
}

// write makes a call to the repo that costs points. The account must be resolved,
// and the caller must hold writing.
func (a *Account) write(ctx context.Context, r request, points int, p Priority, out any) error {
	if _, err := a.token(ctx, ""); err != nil { // before points are spent
		return err
	}
	if err := a.spend(r.method, points, p); err != nil {
		return notSent(r.method, err)
	}
	r.post, r.repo = true, true
	header, err := a.authorized(ctx, r, out)
	if err == nil {
		a.observe(header)
		return nil
	}
	var e *Error
	if errors.As(err, &e) && e.Method == r.method && e.Outcome == Limited { // not a call of the session
		return errors.Join(err, a.limited(e.Until))
	}
	return err
}

// inputLimit is how many bytes the PDS takes, as far as is known.
func (a *Account) inputLimit() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.maxInput
}

// atWrite finds which write a PDS complains about, as in "Invalid record key (got
// "a/b") at $.writes[0].rkey".
var atWrite = regexp.MustCompile(`\$\.writes\[(\d{1,3})\]`)

// refused learns from the error of a call that did not succeed.
func (a *Account) refused(err error, writes []repo.Write, size int) error {
	var e *Error
	if !errors.As(err, &e) || e.Method != applyWrites { // the session's calls say nothing of the writes
		return err
	}
	switch e.Outcome {
	case TooLarge:
		a.mu.Lock()
		a.maxInput = min(a.maxInput, size-1)
		a.mu.Unlock()
	case Refused:
		if i := missingBlob(e, writes); i >= 0 {
			return &repo.WriteError{Index: i, Path: writes[i].Collection + "/" + writes[i].RKey, Err: e}
		}
		if m := atWrite.FindStringSubmatch(e.Message); m != nil {
			if i, err := strconv.Atoi(m[1]); err == nil && i < len(writes) {
				return &repo.WriteError{Index: i, Path: writes[i].Collection + "/" + writes[i].RKey, Err: e}
			}
		}
		if len(writes) == 1 {
			return &repo.WriteError{Path: writes[0].Collection + "/" + writes[0].RKey, Err: e}
		}
	}
	return err
}

// writesInput is the input of applyWrites. `validate` is left out: the PDS then
// checks the collections that it knows, and takes the others.
func writesInput(did string, writes []repo.Write, swap *cid.Cid) ([]byte, error) {
	type write struct {
		Type       string          `json:"$type"`
		Collection string          `json:"collection"`
		RKey       string          `json:"rkey"`
		Value      json.RawMessage `json:"value,omitempty"`
	}
	input := struct {
		Repo       string  `json:"repo"`
		Writes     []write `json:"writes"`
		SwapCommit string  `json:"swapCommit,omitempty"`
	}{Repo: did, Writes: make([]write, len(writes))}
	if swap != nil {
		input.SwapCommit = swap.String()
	}
	for i, w := range writes {
		input.Writes[i] = write{Collection: w.Collection, RKey: w.RKey}
		switch w.Action {
		case repo.Create:
			input.Writes[i].Type = applyWrites + "#create"
		case repo.Update:
			input.Writes[i].Type = applyWrites + "#update"
		case repo.Delete:
			input.Writes[i].Type = applyWrites + "#delete"
			continue
		}
		value, err := lexicon.ToJSON(w.Record)
		if err != nil {
			return nil, &repo.WriteError{Index: i, Path: w.Collection + "/" + w.RKey, Err: err}
		}
		input.Writes[i].Value = value
	}
	return json.Marshal(input)
}
