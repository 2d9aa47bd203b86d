package repo

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/cockroachdb/pebble/v2"
	"github.com/ipfs/go-cid"
)

// What relays accept, by the Sync 1.1 limits of com.atproto.sync.subscribeRepos.
const (
	maxWrites    = 200
	maxRecord    = 1 << 20
	maxCommitCAR = 2_000_000
)

// change is what a call comes to for one path.
type change struct {
	path   string
	prev   cid.Cid // before the call; Undef: no record
	cid    cid.Cid // after it; Undef: no record
	record []byte
	blobs  []digest // of the record
}

func (c change) changed() bool { return c.prev != c.cid }

func (c change) action() Action {
	switch {
	case !c.prev.Defined():
		return Create
	case !c.cid.Defined():
		return Delete
	}
	return Update
}

// checkWrites finds what is wrong with a call whatever the repository holds.
func checkWrites(writes []Write) error {
	if len(writes) > maxWrites {
		return fmt.Errorf("%w: %d writes in one call, at most %d", ErrTooLarge, len(writes), maxWrites)
	}
	total := 0
	for i, w := range writes {
		if err := checkWrite(w); err != nil {
			return &WriteError{i, joinPath(w.Collection, w.RKey), err}
		}
		total += len(w.Record)
	}
	if total > maxCommitCAR {
		return fmt.Errorf("%w: %d bytes of records in one call, at most %d", ErrTooLarge, total, maxCommitCAR)
	}
	return nil
}

func checkWrite(w Write) error {
	if err := ValidPath(w.Collection, w.RKey); err != nil {
		return err
	}
	switch w.Action {
	case Create, Update:
		if len(w.Record) == 0 {
			return fmt.Errorf("%w: a %s needs a record", ErrBadAction, w.Action)
		}
	case Delete:
		if len(w.Record) != 0 {
			return fmt.Errorf("%w: a delete has no record", ErrBadAction)
		}
	default:
		return fmt.Errorf("%w: %q", ErrBadAction, w.Action)
	}
	if len(w.Record) > maxRecord {
		return fmt.Errorf("%w: a record of %d bytes, at most %d", ErrTooLarge, len(w.Record), maxRecord)
	}
	return nil
}

// plan reads what the call's paths hold now and takes its writes in order, so
// that one call may create a record and then update it. It changes nothing.
func plan(t *tree, writes []Write) ([]change, []cid.Cid, error) {
	var changes []change
	at := make(map[string]int, len(writes))
	cids := make([]cid.Cid, len(writes))
	for i, w := range writes {
		path := joinPath(w.Collection, w.RKey)
		j, seen := at[path]
		if !seen {
			prev, err := t.get(path)
			if err != nil {
				return nil, nil, err
			}
			j = len(changes)
			at[path] = j
			changes = append(changes, change{path: path, prev: prev, cid: prev})
		}
		c := &changes[j]
		switch {
		case w.Action == Create && c.cid.Defined():
			return nil, nil, &WriteError{i, path, ErrExists}
		case w.Action != Create && !c.cid.Defined():
			return nil, nil, &WriteError{i, path, ErrNotFound}
		}
		c.record, c.cid = w.Record, cid.Undef
		if w.Action != Delete {
			c.cid = CIDOf(w.Record)
		}
		cids[i] = c.cid
	}
	return changes, cids, nil
}

// errTree says that the tree in memory is no longer to be trusted.
type errTree struct{ error }

func (e errTree) Unwrap() error { return e.error }

// addCommit makes one commit on top of w.next and puts it into the batch. On a
// plain error neither has changed; on an errTree the tree has.
func (w *writer) addCommit(b *pebble.Batch, writes []Write, swap *cid.Cid) (Result, error) {
	if swap != nil && *swap != w.next.Commit {
		return Result{}, &SwapError{w.next.Commit}
	}
	seq, rev, err := w.next.tick(w.cfg.Now())
	if err != nil {
		return Result{}, err
	}
	if err := w.blobs.check(writes); err != nil {
		return Result{}, err
	}
	changes, cids, err := plan(w.tree, writes)
	var refused *WriteError
	if errors.As(err, &refused) {
		return Result{}, err
	}
	if err != nil {
		return Result{}, errTree{err}
	}
	for i := range changes {
		c := &changes[i]
		if !c.changed() {
			continue
		}
		if c.blobs, err = blobsOf(*c); err != nil {
			return Result{}, errTree{err}
		}
		if err := w.tree.set(c.path, c.cid); err != nil {
			return Result{}, errTree{err}
		}
	}
	d, err := w.tree.diff()
	if err != nil {
		return Result{}, errTree{err}
	}
	now, err := w.commitOf(d.root, seq, rev)
	if err != nil {
		return Result{}, errTree{err}
	}
	car, err := commitCAR(now, d.proof, changes)
	if err != nil {
		return Result{}, errTree{err}
	}
	f, err := commitFrame(w.next, now, changes, car)
	if err != nil {
		return Result{}, errTree{err}
	}
	edit, err := w.blobs.plan(changes, now.Rev, w.cfg.Now())
	if err != nil {
		return Result{}, errTree{err}
	}
	putChanges(b, d, changes)
	w.blobs.apply(b, edit)
	now.logged = putEvent(b, w.next.logged, seq, f)
	w.next = now
	return Result{Commit: now.Commit, Rev: now.Rev, CIDs: cids}, nil
}

// commitOf is a signed commit of a tree, and so the state that it leads to.
func (w *writer) commitOf(data cid.Cid, seq, rev uint64) (now state, err error) {
	now = state{logged: w.next.logged, Head: Head{
		DID:  w.cfg.DID,
		Rev:  syntax.NewTID(int64(rev), w.clockID).String(),
		Data: data,
		Seq:  seq,
	}}
	now.block, err = sign(w.cfg.DID, w.cfg.Key, data, now.Rev)
	now.Commit = CIDOf(now.block)
	return now, err
}

// commitCAR holds the commit, the proof and the new records, the commit first.
func commitCAR(now state, proof []block, changes []change) ([]byte, error) {
	size := 3*carHead + len(now.block)
	for _, n := range proof {
		size += carHead + len(n.data)
	}
	for _, c := range changes {
		size += carHead + len(c.record)
	}
	var car bytes.Buffer // writing to it can't fail
	car.Grow(size)
	writeCARHeader(&car, now.Commit)
	writeCARBlock(&car, now.Commit, now.block)
	for _, n := range proof {
		writeCARBlock(&car, n.cid, n.data)
	}
	for _, c := range changes {
		if c.changed() && c.cid.Defined() {
			writeCARBlock(&car, c.cid, c.record)
		}
	}
	if car.Len() > maxCommitCAR {
		return nil, fmt.Errorf("%w: a commit of %d bytes, relays accept %d: send fewer writes in one call", ErrTooLarge, car.Len(), maxCommitCAR)
	}
	return car.Bytes(), nil
}

// putChanges deletes nodes so that Pebble forgets them when it meets what set
// them, and most die before their memtable is written. A tombstone would sink
// through all levels, and be half of what compaction does. It takes that nobody
// sets a node that is there; if somebody did, it might come back as one that
// verify finds leaked.
func putChanges(b *pebble.Batch, d diff, changes []change) {
	for _, c := range d.dead {
		b.SingleDelete(nodeKey(c), nil)
	}
	for _, n := range d.added {
		b.Set(nodeKey(n.cid), n.data, nil)
	}
	for _, c := range changes {
		if c.changed() {
			putRecord(b, c)
		}
	}
}

func putRecord(b *pebble.Batch, c change) {
	if c.prev.Defined() {
		b.Delete(indexKey(c.prev, c.path), nil)
	}
	if !c.cid.Defined() {
		b.Delete(recordKey(c.path), nil)
		return
	}
	setTwo(b, recordKey(c.path), digestOf(c.cid), c.record)
	b.Set(indexKey(c.cid, c.path), nil, nil)
}

// setTwo is a Set of two pieces that need not be put together for it.
func setTwo(b *pebble.Batch, key, first, second []byte) {
	op := b.SetDeferred(len(key), len(first)+len(second))
	copy(op.Key, key)
	copy(op.Value[copy(op.Value, first):], second)
	op.Finish() // can't fail: the batch has no index
}
