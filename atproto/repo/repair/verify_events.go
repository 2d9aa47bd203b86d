package repair

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	indigo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/car"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/atproto/repo/frame"
	"github.com/tidings-dev/tidings/atproto/repo/layout"
	"github.com/tidings-dev/tidings/internal/store"
)

// events checks every event that is kept, and that each follows from the one
// before it, up to the head.
func (v *verifier) events(ctx context.Context) error {
	dropped, err := layout.LastDropped(v.db)
	if err != nil {
		v.report(PartEvents, "", "its start can't be read: %v", err)
	}
	c := chain{verifier: v, last: dropped}
	err = v.scan(ctx, layout.PrefixEvent, PartEvents, func(key []byte, it store.Iterator) error {
		v.counts.Events++
		v.read("events", v.counts.Events)
		val, err := it.ValueAndErr()
		if err == nil {
			err = c.next(key, val)
		}
		if err != nil {
			v.report(PartEvents, eventName(key), "%v", err)
		}
		return nil
	})
	v.first, v.dropped = c.first, dropped
	if err != nil || v.counts.Events == 0 || v.head.Rev == "" {
		return err
	}
	if c.last != v.head.Seq {
		v.report(PartEvents, "", "the last event is %d, the head says %d", c.last, v.head.Seq)
	}
	if c.logged != v.head.Logged {
		v.report(PartEvents, "", "it ends after %d bytes, the head says %d", c.logged, v.head.Logged)
	}
	if c.rev != "" && (c.rev != v.head.Rev || c.commit != v.head.Commit) {
		v.report(PartEvents, "", "the last commit is %s, the head is %s", c.rev, v.head.Rev)
	}
	return nil
}

func eventName(key []byte) string {
	if len(key) == 8 {
		return fmt.Sprint(binary.BigEndian.Uint64(key))
	}
	return fmt.Sprintf("%x", key)
}

// chain is the state after an event.
type chain struct {
	*verifier
	last    uint64 // sequence number
	logged  uint64 // bytes of all frames up to the last event, by its row
	started bool   // logged is known

	first  string // the first rev
	rev    string // the state after the last #commit or #sync; "": unknown
	data   cid.Cid
	commit cid.Cid
	signed []byte // that commit

	block func(cid.Cid, []byte) error // called with every block of the events; may be nil
}

// next adds an event, given by its key without the prefix and its row; a row that
// can't be read is nil. After an error the chain continues from there.
func (c *chain) next(key, val []byte) error {
	if len(key) != 8 {
		return errors.New("invalid key")
	}
	seq := binary.BigEndian.Uint64(key)
	if seq <= c.last {
		return fmt.Errorf("kept, although events up to %d were dropped", c.last)
	}
	c.last = seq
	before, data, err := layout.SplitEvent(val)
	if err != nil {
		return errors.New("truncated")
	}
	follows := !c.started || before == c.logged
	c.logged, c.started = before+uint64(len(data)), true
	err = c.event(seq, data)
	if err != nil && !errors.Is(err, errGap) {
		c.rev = "" // the next event is not compared with this one
	}
	if !follows {
		return errors.New("wrong number of bytes before it: an event is missing or changed")
	}
	return err
}

var errGap = errors.New("does not follow from the state before it")

// event checks the frame of an event.
func (c *chain) event(seq uint64, data []byte) error {
	message, err := frame.Decode(data)
	if err != nil {
		return err
	}
	switch msg := message.(type) {
	case *comatproto.SyncSubscribeRepos_Commit:
		if err := c.checkIdentity(seq, msg.Seq, msg.Repo); err != nil {
			return err
		}
		return c.commitEvent(msg)
	case *comatproto.SyncSubscribeRepos_Sync:
		if err := c.checkIdentity(seq, msg.Seq, msg.Did); err != nil {
			return err
		}
		_, err := c.take(msg.Blocks, cid.Undef, msg.Rev)
		return err
	case *comatproto.SyncSubscribeRepos_Identity:
		return c.checkIdentity(seq, msg.Seq, msg.Did)
	case *comatproto.SyncSubscribeRepos_Account:
		return c.checkIdentity(seq, msg.Seq, msg.Did)
	}
	return fmt.Errorf("unexpected event %T", message)
}

func (c *chain) checkIdentity(seq uint64, got int64, did string) error {
	if uint64(got) != seq || did != c.cfg.DID {
		return fmt.Errorf("the frame is event %d of %s", got, did)
	}
	return nil
}

// commitEvent checks a #commit: its blocks, its signature, the records of its
// operations, and that it follows from the state before it.
func (c *chain) commitEvent(msg *comatproto.SyncSubscribeRepos_Commit) error {
	rev, data := c.rev, c.data
	blocks, err := c.take(msg.Blocks, cid.Cid(msg.Commit), msg.Rev)
	if err != nil {
		return err
	}
	for _, op := range msg.Ops {
		if op.Cid == nil {
			continue
		}
		if _, ok := blocks[cid.Cid(*op.Cid)]; !ok {
			return fmt.Errorf("record %s at %s is missing", cid.Cid(*op.Cid), op.Path)
		}
	}
	if rev == "" {
		return nil
	}
	if msg.Since == nil || *msg.Since != rev || msg.PrevData == nil || cid.Cid(*msg.PrevData) != data {
		return fmt.Errorf("%w, %s", errGap, rev)
	}
	return nil
}

// take reads the blocks of an event and makes its commit the state. The commit is
// the root of the blocks, and must be id unless that is Undef.
func (c *chain) take(file []byte, id cid.Cid, rev string) (map[cid.Cid][]byte, error) {
	blocks := map[cid.Cid][]byte{}
	root, err := car.ReadBlocks(bytes.NewReader(file), repo.MaxCommit, func(id cid.Cid, data []byte) error {
		blocks[id] = bytes.Clone(data)
		if c.block == nil {
			return nil
		}
		return c.block(id, data)
	})
	if err != nil {
		return nil, err
	}
	if !id.Defined() {
		id = root
	}
	data, ok := blocks[id]
	if !ok || root != id {
		return nil, fmt.Errorf("commit %s is missing", id)
	}
	var commit indigo.Commit
	if err := commit.UnmarshalCBOR(bytes.NewReader(data)); err != nil {
		return nil, fmt.Errorf("invalid commit: %w", err)
	}
	if commit.VerifyStructure() != nil || commit.DID != c.cfg.DID || commit.Rev != rev {
		return nil, fmt.Errorf("its commit is of %s at %s", commit.DID, commit.Rev)
	}
	if c.signer(&commit) == nil {
		return nil, fmt.Errorf("commit %s is not signed by a key of this account", id)
	}
	c.rev, c.data, c.commit, c.signed = rev, commit.Data, id, data
	if c.first == "" {
		c.first = rev
	}
	return blocks, nil
}

// eachEvent reads the event log from the start. Where it can't be read, it calls
// each with a nil row, and continues with the last part that can be read.
func eachEvent(ctx context.Context, db store.Reader, each func(key, val []byte) error) error {
	it, err := layout.Iterate(db, layout.PrefixEvent)
	if err != nil {
		return err
	}
	defer it.Close()
	var last []byte
	for ok := it.First(); ; ok = it.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		var val []byte
		if ok {
			if val, err = it.ValueAndErr(); err != nil {
				val = nil
			}
		} else if it.Error() == nil || !skipDamage(it, last) {
			return nil
		}
		last = append(last[:0], it.Key()...)
		if err := each(it.Key()[len(layout.PrefixEvent):], val); err != nil {
			return err
		}
	}
}

// skipDamage moves to the first event of the last part that can be read, if that
// is after a key.
func skipDamage(it store.Iterator, after []byte) bool {
	var first []byte
	for ok := it.Last(); ok && bytes.Compare(it.Key(), after) > 0; ok = it.Prev() {
		first = append(first[:0], it.Key()...)
	}
	return first != nil && it.SeekGE(first)
}
