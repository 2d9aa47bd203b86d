package repo

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/car"
	"github.com/tidings-dev/tidings/atproto/repo/frame"
	"github.com/tidings-dev/tidings/atproto/repo/layout"
)

// maxHistory is how many bytes of frames are read to look back. Beyond it, an
// export of the whole repo is cheaper.
const maxHistory = 8 << 20

// CommitInfo identifies a commit in the event log.
type CommitInfo struct {
	CID cid.Cid
	Rev string
}

// CommitPath lists the commits after earliest up to latest, the oldest first. If
// earliest is cid.Undef they begin with the very first commit; if latest is
// cid.Undef they end with the head. The error is ErrNotKept if the event log, of
// which the newest few megabytes are read, doesn't reach back so far.
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
		return nil, fmt.Errorf("%w: the first commit", ErrNotKept)
	}
	slices.Reverse(path)
	return path, nil
}

// RevOf returns the rev of a commit that CommitPath knows, or ErrNotKept.
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

// ExportSince writes the blocks that the repo has now and did not have at
// rev, and perhaps some more, as a CAR file whose root is the head. It takes them
// from the event log; where that doesn't reach back, it is Export. At the head
// and later there are no blocks.
func (r *Repo) ExportSince(ctx context.Context, w io.Writer, rev string) error {
	v, err := r.acquire()
	if err != nil {
		return err
	}
	if rev >= v.Rev {
		root := v.Commit
		r.release(v)
		return car.WriteHeader(w, root)
	}
	cars, reached, err := v.carsSince(ctx, rev)
	if err == nil && reached {
		err = v.exportNew(ctx, w, cars)
	}
	r.release(v)
	switch {
	case err != nil:
		return fmt.Errorf("export since %s: %w", rev, err)
	case !reached:
		return r.Export(ctx, w)
	}
	return nil
}

// carsSince collects the blocks of the commits after rev, the newest first.
// reached is false if the event log doesn't reach back to rev.
func (v *view) carsSince(ctx context.Context, rev string) (cars [][]byte, reached bool, err error) {
	err = v.walkBack(ctx, func(c CommitInfo, blocks []byte) bool {
		if reached = c.Rev == rev; reached || blocks == nil {
			return false
		}
		cars = append(cars, blocks)
		return true
	}, func() {})
	return cars, reached, err
}

// exportNew writes the blocks of cars that are still in use, each once.
func (v *view) exportNew(ctx context.Context, w io.Writer, cars [][]byte) error {
	f, err := v.finder()
	if err != nil {
		return err
	}
	defer f.Close()
	out := bufio.NewWriterSize(w, 64<<10)
	if err := car.WriteHeader(out, v.Commit); err != nil {
		return err
	}
	seen := map[cid.Cid]bool{}
	for _, blocks := range cars {
		_, err := car.ReadBlocks(bytes.NewReader(blocks), MaxCommit, func(c cid.Cid, data []byte) error {
			if seen[c] {
				return nil
			}
			seen[c] = true
			if err := ctx.Err(); err != nil {
				return err
			}
			switch _, err := f.size(c); {
			case errors.Is(err, ErrNotFound):
				return nil
			case err != nil:
				return err
			}
			return car.WriteBlock(out, c, data)
		})
		if errors.Is(err, car.ErrFormat) || errors.Is(err, car.ErrHash) {
			err = fmt.Errorf("read events: %w: %w", err, layout.ErrDamaged)
		}
		if err != nil {
			return err
		}
	}
	return out.Flush()
}

// walkBack visits commits from the head back, each with the blocks of its event.
// It ends when visit returns false, or at the first commit, where it calls first.
// A commit whose event is not kept ends it, too; that is visited without blocks,
// and perhaps only its rev is known.
func (v *view) walkBack(ctx context.Context, visit func(c CommitInfo, blocks []byte) bool, first func()) error {
	it, err := iterateEvents(v.snap, 0)
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
		msg, err := decodeCommitEvent(val)
		if err != nil {
			return fmt.Errorf("read event %d: %w: %w", layout.SeqOf(it.Key()), err, layout.ErrDamaged)
		}
		if msg == nil {
			continue
		}
		if msg.Rev != want.Rev {
			break // its event was dropped, or it never had one
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
	// The one after it has the rev of a commit whose event was dropped or that an
	// import made; the head is known anyway.
	visit(want, nil)
	return it.Error()
}

// decodeCommitEvent decodes an event's row; nil if it is not a #commit.
func decodeCommitEvent(val []byte) (*comatproto.SyncSubscribeRepos_Commit, error) {
	_, data, err := layout.SplitEvent(val)
	if err != nil {
		return nil, err
	}
	return frame.DecodeCommit(data)
}
