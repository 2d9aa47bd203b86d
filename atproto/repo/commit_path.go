package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/ipfs/go-cid"
)

// ErrNotKept: a commit so old that nothing is known of it any more, or one
// that never was.
var ErrNotKept = errors.New("commit is not kept")

// maxHistory is how many bytes of frames a look back reads. Who needs more is
// better served with the whole repository.
const maxHistory = 8 << 20

// CommitInfo is what the event log tells of a commit.
type CommitInfo struct {
	CID cid.Cid
	Rev string
}

// CommitPath lists the commits after earliest up to latest, the oldest first.
// cid.Undef stands for the very first and for the head. ErrNotKept if the event
// log, of which the newest few megabytes are read, doesn't reach back so far.
func (r *Repo) CommitPath(ctx context.Context, earliest, latest cid.Cid) ([]CommitInfo, error) {
	v, err := r.acquire()
	if err != nil {
		return nil, err
	}
	defer r.release(v)
	var path []CommitInfo
	reached, inside := false, !latest.Defined()
	err = v.walkBack(ctx, func(c CommitInfo, _ []byte) bool {
		inside = inside || c.CID == latest
		if reached = inside && earliest.Defined() && c.CID == earliest; reached {
			return false
		}
		if inside {
			path = append(path, c)
		}
		return true
	}, func() { reached = inside && !earliest.Defined() })
	if err != nil {
		return nil, err
	}
	switch {
	case !inside:
		return nil, fmt.Errorf("%w: %s", ErrNotKept, latest)
	case !reached && earliest.Defined():
		return nil, fmt.Errorf("%w: %s", ErrNotKept, earliest)
	case !reached:
		return nil, fmt.Errorf("%w: the first one", ErrNotKept)
	}
	slices.Reverse(path)
	return path, nil
}

// RevOf is the revision of a commit that CommitPath knows, or ErrNotKept.
func (r *Repo) RevOf(ctx context.Context, commit cid.Cid) (rev string, err error) {
	v, err := r.acquire()
	if err != nil {
		return "", err
	}
	defer r.release(v)
	err = v.walkBack(ctx, func(c CommitInfo, _ []byte) bool {
		if c.CID == commit {
			rev = c.Rev
		}
		return rev == ""
	}, func() {})
	if err == nil && rev == "" {
		err = fmt.Errorf("%w: %s", ErrNotKept, commit)
	}
	return rev, err
}

// walkBack visits commits from the head on, each with the blocks of its event,
// nil for a commit without one, of which perhaps only the rev is known. It ends where visit says so, where the log
// doesn't have the commit before, or at the first one, which it tells.
func (v *view) walkBack(ctx context.Context, visit func(c CommitInfo, car []byte) bool, first func()) error {
	it, err := eventIter(v.snap, 0)
	if err != nil {
		return err
	}
	defer it.Close()
	want, size := CommitInfo{v.Commit, v.Rev}, 0
	for ok := it.Last(); ok && size < maxHistory; ok = it.Prev() {
		if err := ctx.Err(); err != nil {
			return err
		}
		val, err := it.ValueAndErr()
		if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
		size += len(val)
		msg, err := decodeCommitFrame(val)
		if err != nil {
			return fmt.Errorf("read event %d: %w", seqOf(it.Key()), err)
		}
		if msg == nil {
			continue
		}
		if msg.Rev != want.Rev {
			break // its event is gone, or it never had one
		}
		if !visit(CommitInfo{cid.Cid(msg.Commit), msg.Rev}, msg.Blocks) {
			return nil
		}
		if msg.Since == nil {
			first()
			return nil
		}
		want = CommitInfo{cid.Undef, *msg.Since}
	}
	// A commit whose event is gone, or which an import made, is known by the
	// one after it; the head anyway.
	visit(want, nil)
	return it.Error()
}

// decodeCommitFrame reads what stands under an event's key; nil if it is no
// #commit.
func decodeCommitFrame(val []byte) (*comatproto.SyncSubscribeRepos_Commit, error) {
	const kind = "#commit"
	head := append([]byte{0xa2, 0x61, 't', 0x60 | byte(len(kind))}, kind+"\x62op\x01"...)
	if len(val) < 8 {
		return nil, errDamaged
	}
	body, ok := bytes.CutPrefix(val[8:], head)
	if !ok {
		return nil, nil
	}
	var msg comatproto.SyncSubscribeRepos_Commit
	if err := msg.UnmarshalCBOR(bytes.NewReader(body)); err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	return &msg, nil
}
