package repo

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	indigo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/cockroachdb/pebble/v2"
	"github.com/ipfs/go-cid"
	cbg "github.com/whyrusleeping/cbor-gen"

	"github.com/tidings-dev/tidings/internal/store"
)

// log looks at every frame that is kept, and at how they follow one another.
func (v *verifier) log(ctx context.Context) error {
	lost, err := lastLost(v.db)
	if err != nil {
		v.wrong(PartLog, "", "where it begins: %v", err)
	}
	chain := chain{verifier: v, last: lost}
	err = v.scan(ctx, prefixEvent, PartLog, func(rest []byte, it *pebble.Iterator) error {
		v.report.Events++
		val, err := it.ValueAndErr()
		if err == nil {
			err = chain.next(rest, val)
		}
		if err != nil {
			v.wrong(PartLog, eventName(rest), "%v", err)
		}
		return nil
	})
	v.begin, v.gone = chain.first, lost
	if err != nil || v.report.Events == 0 || v.head.Rev == "" {
		return err
	}
	if chain.last != v.head.Seq {
		v.wrong(PartLog, "", "its last event is %d, and the head says %d", chain.last, v.head.Seq)
	}
	if chain.logged != v.head.logged {
		v.wrong(PartLog, "", "it ends after %d bytes, and the head says %d", chain.logged, v.head.logged)
	}
	if chain.rev != "" && (chain.rev != v.head.Rev || chain.commit != v.head.Commit) {
		v.wrong(PartLog, "", "its last commit is %s, and the head is %s", chain.rev, v.head.Rev)
	}
	return nil
}

func eventName(rest []byte) string {
	if len(rest) == 8 {
		return fmt.Sprint(binary.BigEndian.Uint64(rest))
	}
	return fmt.Sprintf("%x", rest)
}

func lastLost(db pebble.Reader) (uint64, error) {
	val, err := store.Read(db, keyLost)
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		return 0, nil
	case err != nil:
		return 0, err
	case len(val) != 8:
		return 0, errors.New("it is cut short")
	}
	return binary.BigEndian.Uint64(val), nil
}

// chain is what the events up to one have told.
type chain struct {
	*verifier
	last   uint64 // seq
	logged uint64 // bytes, from the first kept event on those that it counts
	some   bool

	first  string // the first rev that it tells of
	rev    string // the state that the last #commit or #sync gave; "": none did
	data   cid.Cid
	commit cid.Cid
	signed []byte // that commit

	block func(cid.Cid, []byte) error // nil, or takes every block that an event carries
}

// next takes the event after those before. After an error it goes on from
// there.
func (c *chain) next(rest, val []byte) error {
	if len(rest) != 8 {
		return errors.New("its key is no sequence number")
	}
	seq := binary.BigEndian.Uint64(rest)
	if seq <= c.last {
		return fmt.Errorf("it is kept, and %d is said to be lost", c.last)
	}
	c.last = seq
	if len(val) < 8 {
		return errors.New("it is cut short")
	}
	before, frame := binary.BigEndian.Uint64(val), val[8:]
	counted := !c.some || before == c.logged
	c.logged, c.some = before+uint64(len(frame)), true
	err := c.frame(seq, frame)
	if err != nil && !errors.Is(err, errGap) {
		c.rev = "" // and the next event is not to blame
	}
	if !counted {
		return errors.New("the bytes before it are counted wrong: an event is missing, or is another")
	}
	return err
}

var errGap = errors.New("it is not on top of the state before it")

func (c *chain) frame(seq uint64, frame []byte) error {
	kind, body, err := splitFrame(frame)
	if err != nil {
		return err
	}
	switch kind {
	case "#commit":
		var msg comatproto.SyncSubscribeRepos_Commit
		if err := decodeBody(&msg, body); err != nil {
			return err
		}
		if uint64(msg.Seq) != seq || msg.Repo != c.cfg.DID {
			return fmt.Errorf("it says that it is event %d of %s", msg.Seq, msg.Repo)
		}
		return c.commitEvent(&msg)
	case string(Sync):
		var msg comatproto.SyncSubscribeRepos_Sync
		if err := decodeBody(&msg, body); err != nil {
			return err
		}
		if uint64(msg.Seq) != seq || msg.Did != c.cfg.DID {
			return fmt.Errorf("it says that it is event %d of %s", msg.Seq, msg.Did)
		}
		return c.syncEvent(&msg)
	case string(Identity):
		var msg comatproto.SyncSubscribeRepos_Identity
		if err := decodeBody(&msg, body); err != nil {
			return err
		}
		if uint64(msg.Seq) != seq || msg.Did != c.cfg.DID {
			return fmt.Errorf("it says that it is event %d of %s", msg.Seq, msg.Did)
		}
		return nil
	case string(Account):
		var msg comatproto.SyncSubscribeRepos_Account
		if err := decodeBody(&msg, body); err != nil {
			return err
		}
		if uint64(msg.Seq) != seq || msg.Did != c.cfg.DID {
			return fmt.Errorf("it says that it is event %d of %s", msg.Seq, msg.Did)
		}
		return nil
	}
	return fmt.Errorf("there are no events of kind %q", kind)
}

// splitFrame undoes frame, byte by byte as that makes it.
func splitFrame(frame []byte) (kind string, body []byte, err error) {
	rest, ok := bytes.CutPrefix(frame, []byte{0xa2, 0x61, 't'})
	if !ok || len(rest) == 0 || rest[0]&0xe0 != 0x60 || len(rest) < 1+int(rest[0]&0x1f) {
		return "", nil, errors.New("its header can't be understood")
	}
	n := 1 + int(rest[0]&0x1f)
	kind = string(rest[1:n])
	body, ok = bytes.CutPrefix(rest[n:], []byte{0x62, 'o', 'p', 1})
	if !ok {
		return "", nil, errors.New("its header can't be understood")
	}
	return kind, body, nil
}

func decodeBody(into cbg.CBORUnmarshaler, body []byte) error {
	in := bytes.NewReader(body)
	if err := into.UnmarshalCBOR(in); err != nil {
		return errors.New("it can't be understood")
	}
	if in.Len() > 0 {
		return fmt.Errorf("it has %d bytes too many", in.Len())
	}
	return nil
}

// commitEvent takes a #commit: its blocks, its signature, the records of its
// operations, and that it is on top of the state before.
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
			return fmt.Errorf("it lacks the record %s at %s", cid.Cid(*op.Cid), op.Path)
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

func (c *chain) syncEvent(msg *comatproto.SyncSubscribeRepos_Sync) error {
	root, err := readCAR(bytes.NewReader(msg.Blocks), maxCommitCAR, func(cid.Cid, []byte) error { return nil })
	if err != nil {
		return err
	}
	_, err = c.take(msg.Blocks, root, msg.Rev)
	return err
}

// take takes the blocks of an event apart, and its commit as the state.
func (c *chain) take(car []byte, id cid.Cid, rev string) (map[cid.Cid][]byte, error) {
	blocks := map[cid.Cid][]byte{}
	root, err := readCAR(bytes.NewReader(car), maxCommitCAR, func(id cid.Cid, data []byte) error {
		blocks[id] = bytes.Clone(data)
		if c.block == nil {
			return nil
		}
		return c.block(id, data)
	})
	if err != nil {
		return nil, err
	}
	data, ok := blocks[id]
	if !ok || root != id {
		return nil, fmt.Errorf("it lacks its commit %s", id)
	}
	var commit indigo.Commit
	if err := commit.UnmarshalCBOR(bytes.NewReader(data)); err != nil {
		return nil, errors.New("its commit can't be understood")
	}
	if commit.VerifyStructure() != nil || commit.DID != c.cfg.DID || commit.Rev != rev {
		return nil, fmt.Errorf("its commit is of %s at %s", commit.DID, commit.Rev)
	}
	if c.signer(&commit) == nil {
		return nil, fmt.Errorf("its commit %s is not signed by a key of this account", id)
	}
	c.rev, c.data, c.commit, c.signed = rev, commit.Data, id, data
	if c.first == "" {
		c.first = rev
	}
	return blocks, nil
}
