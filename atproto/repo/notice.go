package repo

import (
	"bytes"
	"context"
	"fmt"
	"time"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/cockroachdb/pebble/v2"
)

// Notice is an event that changes nothing: it says again what is so.
type Notice string

const (
	Identity    Notice = "#identity"            // look the identity up again: handle, keys, host
	Account     Notice = "#account"             // the account is active, and here
	Deactivated Notice = "#account deactivated" // the account is not active here
	Sync        Notice = "#sync"                // the head is this commit, whatever was known before
)

// Notify logs events in this order and returns once they are durable. The
// errors are those of Apply. Identity and Deactivated are taken also while the
// account is elsewhere.
func (r *Repo) Notify(ctx context.Context, notices ...Notice) error {
	if len(notices) == 0 {
		return nil
	}
	_, err := r.submit(request{ctx: ctx, notices: notices})
	return err
}

// Renew makes a commit that changes no record, and logs notices after it, all
// in one transaction. With Sync it brings those to this repository's state who
// know a later one: from before a backup was restored, say.
func (r *Repo) Renew(ctx context.Context, notices ...Notice) (Result, error) {
	return r.submit(request{ctx: ctx, commit: true, notices: notices})
}

// serve puts what a request asks for into the batch.
func (w *writer) serve(b *pebble.Batch, q request) (result Result, err error) {
	if q.work != nil {
		return Result{}, q.work(w, b)
	}
	if len(q.notices) == 0 || q.commit {
		if result, err = w.addCommit(b, q.writes, q.swap); err != nil {
			return Result{}, err
		}
		w.rate.add(time.Now())
	}
	for _, n := range q.notices {
		if err := w.addNotice(b, n); err != nil {
			return Result{}, fmt.Errorf("%w: log %s: %w", ErrUnknownOutcome, n, err)
		}
		w.rate.add(time.Now())
	}
	return result, nil
}

func (w *writer) addNotice(b *pebble.Batch, n Notice) error {
	seq, _, err := w.next.tick(w.cfg.Now())
	if err != nil {
		return err
	}
	f, err := noticeFrame(n, w.next, w.cfg.Handle, seq)
	if err != nil {
		return err
	}
	w.next.logged = putEvent(b, w.next.logged, seq, f)
	w.next.Seq = seq
	return nil
}

func noticeFrame(n Notice, s state, handle string, seq uint64) ([]byte, error) {
	switch n {
	case Identity:
		return identityFrame(s.DID, handle, seq)
	case Account:
		return accountFrame(s.DID, "", seq)
	case Deactivated:
		return accountFrame(s.DID, "deactivated", seq)
	case Sync:
		return syncFrame(s, seq)
	}
	return nil, fmt.Errorf("there is no notice %q", n)
}

func syncFrame(s state, seq uint64) ([]byte, error) {
	var car bytes.Buffer // writing to it can't fail
	writeCARHeader(&car, s.Commit)
	writeCARBlock(&car, s.Commit, s.block)
	return frame(string(Sync), &comatproto.SyncSubscribeRepos_Sync{
		Blocks: car.Bytes(), Did: s.DID, Rev: s.Rev, Seq: int64(seq), Time: frameTime(seq),
	}, car.Len()+512)
}
