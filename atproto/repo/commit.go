package repo

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/car"
	"github.com/tidings-dev/tidings/atproto/mst"
	"github.com/tidings-dev/tidings/atproto/repo/frame"
	"github.com/tidings-dev/tidings/atproto/repo/layout"
	"github.com/tidings-dev/tidings/internal/store"
)

// The limits of relays, by Sync 1.1: com.atproto.sync.subscribeRepos.
const (
	MaxWrites = 200              // per commit
	MaxRecord = layout.MaxRecord // bytes
	MaxCommit = 2_000_000        // bytes of a commit's CAR
)

// change is the net effect of a call on one path.
type change struct {
	path   string
	prev   cid.Cid // before the call; Undef: no record
	cid    cid.Cid // after it; Undef: no record
	record []byte
	blobs  []block.Digest // of the record
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

// CheckWrites checks the writes of one call as far as that is possible without the
// contents of the repo. Apply calls it, too.
func CheckWrites(writes []Write) error {
	if len(writes) > MaxWrites {
		return fmt.Errorf("%w: %d writes in one call, at most %d are allowed", ErrTooLarge, len(writes), MaxWrites)
	}
	total := 0
	for i, w := range writes {
		if err := checkWrite(w); err != nil {
			return &WriteError{i, mst.JoinPath(w.Collection, w.RKey), err}
		}
		total += len(w.Record)
	}
	if total > MaxCommit {
		return fmt.Errorf("%w: %d bytes of records in one call, at most %d are allowed", ErrTooLarge, total, MaxCommit)
	}
	return nil
}

func checkWrite(w Write) error {
	if err := mst.CheckPath(w.Collection, w.RKey); err != nil {
		return err
	}
	switch w.Action {
	case Create, Update:
		if len(w.Record) == 0 {
			return fmt.Errorf("%w: %s without a record", ErrInvalidAction, w.Action)
		}
	case Delete:
		if len(w.Record) != 0 {
			return fmt.Errorf("%w: delete with a record", ErrInvalidAction)
		}
	default:
		return fmt.Errorf("%w: %q is not create, update or delete", ErrInvalidAction, w.Action)
	}
	if len(w.Record) > MaxRecord {
		return fmt.Errorf("%w: a record of %d bytes, at most %d are allowed", ErrTooLarge, len(w.Record), MaxRecord)
	}
	return nil
}

// plan reads the records at the call's paths and applies its writes to them in
// order, so that one call may create a record and then update it. It changes
// nothing.
func plan(t *mst.Tree, writes []Write) ([]change, []cid.Cid, error) {
	var changes []change
	at := make(map[string]int, len(writes))
	cids := make([]cid.Cid, len(writes))
	for i, w := range writes {
		path := mst.JoinPath(w.Collection, w.RKey)
		j, seen := at[path]
		if !seen {
			prev, err := t.Get(path)
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
			c.cid = block.CIDOf(w.Record)
		}
		cids[i] = c.cid
	}
	return changes, cids, nil
}

// errTree is an error after which the tree in memory must be reloaded.
type errTree struct{ error }

func (e errTree) Unwrap() error { return e.error }

// addCommit adds one commit on top of w.next to the batch. After an error batch
// and state are unchanged; after an errTree the tree in memory is not.
func (w *writer) addCommit(b store.Batch, writes []Write, swap *cid.Cid) (Result, error) {
	if swap != nil && *swap != w.next.Commit {
		return Result{}, &SwapError{w.next.Commit}
	}
	seq, rev, err := tick(w.next, w.cfg.Now())
	if err != nil {
		return Result{}, err
	}
	if err := w.blobs.check(writes); err != nil {
		return Result{}, err
	}
	changes, cids, err := plan(w.tree, writes)
	if errors.As(err, new(*WriteError)) {
		return Result{}, err
	}
	var d mst.Diff
	if err == nil {
		d, err = w.changeTree(changes)
	}
	if err != nil {
		return Result{}, errTree{damaged(err)}
	}
	now, err := w.commitOf(d.Root, seq, rev)
	if err != nil {
		return Result{}, errTree{err}
	}
	blocks, err := commitCAR(now, d.Proof, changes)
	if err != nil {
		return Result{}, errTree{err}
	}
	f, err := commitEvent(w.next, now, changes, blocks).Encode()
	if err != nil {
		return Result{}, errTree{err}
	}
	edit, err := w.blobs.plan(changes, now.Rev, w.cfg.Now())
	if err != nil {
		return Result{}, errTree{err}
	}
	putChanges(b, d, changes)
	w.blobs.apply(b, edit)
	now.Logged = layout.SetEvent(b, w.next.Logged, seq, f)
	w.next = now
	return Result{Commit: now.Commit, Rev: now.Rev, CIDs: cids}, nil
}

// changeTree applies changes to the tree, and sets their blobs.
func (w *writer) changeTree(changes []change) (d mst.Diff, err error) {
	for i := range changes {
		c := &changes[i]
		if !c.changed() {
			continue
		}
		if c.cid.Defined() {
			if c.blobs, err = layout.BlobsOf(c.record); err != nil {
				return d, err
			}
		}
		if err := w.tree.Set(c.path, c.cid); err != nil {
			return d, err
		}
	}
	return w.tree.Diff()
}

// commitCAR returns a CAR file with the commit, which is the root, the proof, and
// the new records.
func commitCAR(now layout.State, proof []block.Block, changes []change) ([]byte, error) {
	size := 3*car.SectionOverhead + len(now.Block)
	for _, n := range proof {
		size += car.SectionOverhead + len(n.Data)
	}
	for _, c := range changes {
		size += car.SectionOverhead + len(c.record)
	}
	var out bytes.Buffer // writing to it can't fail
	out.Grow(size)
	car.WriteHeader(&out, now.Commit)
	car.WriteBlock(&out, now.Commit, now.Block)
	for _, n := range proof {
		car.WriteBlock(&out, n.CID, n.Data)
	}
	for _, c := range changes {
		if c.changed() && c.cid.Defined() {
			car.WriteBlock(&out, c.cid, c.record)
		}
	}
	if out.Len() > MaxCommit {
		return nil, fmt.Errorf("%w: a commit of %d bytes, relays accept %d: send fewer writes in one call", ErrTooLarge, out.Len(), MaxCommit)
	}
	return out.Bytes(), nil
}

// commitEvent returns the #commit of a change. A record that was replaced by
// itself is left out, since Sync 1.1 can't express that.
func commitEvent(before, now layout.State, changes []change, blocks []byte) frame.Commit {
	event := frame.Commit{
		DID: now.DID, Seq: now.Seq, Commit: now.Commit, Rev: now.Rev,
		Since: before.Rev, PrevData: before.Data, Blocks: blocks,
	}
	for _, c := range changes {
		if c.changed() {
			event.Ops = append(event.Ops, frame.Op{Action: string(c.action()), Path: c.path, CID: c.cid, Prev: c.prev})
		}
	}
	return event
}

// putChanges stores the nodes and the records of a commit. It deletes nodes with
// SingleDelete, which Pebble drops together with the Set of the node. Most nodes
// are deleted before their memtable is written; ordinary tombstones would sink
// through all levels, and be half of what compactions do. SingleDelete requires
// that a stored node is not set again; if one were, it might reappear as a node
// that verify reports as leaked.
func putChanges(b store.Batch, d mst.Diff, changes []change) {
	for _, c := range d.Removed {
		b.SingleDelete(layout.NodeKey(block.DigestOf(c)))
	}
	for _, n := range d.Added {
		b.Set(layout.NodeKey(block.DigestOf(n.CID)), n.Data)
	}
	for _, c := range changes {
		if c.changed() {
			putRecord(b, c)
		}
	}
}

func putRecord(b store.Batch, c change) {
	if c.prev.Defined() {
		b.Delete(layout.IndexKey(c.prev, c.path))
	}
	if !c.cid.Defined() {
		b.Delete(layout.RecordKey(c.path))
		return
	}
	b.SetJoined(layout.RecordKey(c.path), block.DigestOf(c.cid), c.record)
	b.Set(layout.IndexKey(c.cid, c.path), nil)
}
