package layout

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	indigo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/internal/store"
)

// MaxAhead is how far the rev of the head may be ahead of the clock. Relays
// refuse commits that are five minutes ahead.
const MaxAhead = time.Minute

// MaxRecord is the maximum size of a record in bytes, by the Sync 1.1 limits of
// com.atproto.sync.subscribeRepos.
const MaxRecord = 1 << 20

// Head is the durable state of a repo as others see it.
type Head struct {
	DID    string
	Rev    string  // TID
	Commit cid.Cid // the signed commit
	Data   cid.Cid // the root of its tree
	Seq    uint64  // sequence number of the last event
}

// State is the content of the head's row: the head, and data for the next commit.
// The zero State is that of a repo without commits.
type State struct {
	Head
	Block  []byte // the signed commit
	Logged uint64 // bytes of all frames ever logged
}

// Encode returns the head's row: Seq, Logged, and the signed commit.
func (s State) Encode() []byte {
	out := binary.BigEndian.AppendUint64(nil, s.Seq)
	out = binary.BigEndian.AppendUint64(out, s.Logged)
	return append(out, s.Block...)
}

// DecodeState is the inverse of Encode. It doesn't verify the signature.
func DecodeState(val []byte) (State, indigo.Commit, error) {
	var commit indigo.Commit
	if len(val) < 16 {
		return State{}, commit, ErrDamaged
	}
	signed := val[16:]
	if err := commit.UnmarshalCBOR(bytes.NewReader(signed)); err != nil {
		return State{}, commit, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err := commit.VerifyStructure(); err != nil {
		return State{}, commit, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return State{
		Head: Head{
			DID:    commit.DID,
			Rev:    commit.Rev,
			Commit: block.CIDOf(signed),
			Data:   commit.Data,
			Seq:    binary.BigEndian.Uint64(val),
		},
		Block:  signed,
		Logged: binary.BigEndian.Uint64(val[8:]),
	}, commit, nil
}

// Ahead is how far the rev is ahead of a time, usually negative.
func (h Head) Ahead(now time.Time) time.Duration { return syntax.TID(h.Rev).Time().Sub(now) }

// SplitRecord splits a record's row into its CID and its bytes. It doesn't
// compare them.
func SplitRecord(val []byte) (cid.Cid, []byte, error) {
	if len(val) < block.DigestSize {
		return cid.Undef, nil, ErrDamaged
	}
	return block.CID(val[:block.DigestSize]), val[block.DigestSize:], nil
}

// VerifyRecord is SplitRecord for a record that is served: its bytes must match
// its CID.
func VerifyRecord(path string, val []byte) (cid.Cid, []byte, error) {
	c, record, err := SplitRecord(val)
	if err == nil && sha256.Sum256(record) != block.Digest(val[:block.DigestSize]) {
		err = ErrDamaged
	}
	if err != nil {
		return cid.Undef, nil, fmt.Errorf("record %s: %w", path, err)
	}
	return c, record, nil
}

// SetEvent logs a frame and returns the new count of logged bytes. Each event
// has the count before it, so the size of any range is one subtraction.
func SetEvent(b store.Batch, logged, seq uint64, frame []byte) uint64 {
	b.SetJoined(EventKey(seq), binary.BigEndian.AppendUint64(nil, logged), frame)
	return logged + uint64(len(frame))
}

// SplitEvent splits an event's row into the bytes logged before it and its frame.
func SplitEvent(val []byte) (logged uint64, frame []byte, err error) {
	if len(val) < 8 {
		return 0, nil, ErrDamaged
	}
	return binary.BigEndian.Uint64(val), val[8:], nil
}

// SeqOf returns the sequence number in an event's key.
func SeqOf(key []byte) uint64 { return binary.BigEndian.Uint64(key[len(PrefixEvent):]) }

// LastDropped returns the sequence number of the last event that was dropped, 0
// if all are kept.
func LastDropped(db store.Reader) (uint64, error) {
	val, err := read(db, KeyDropped)
	switch {
	case err != nil || val == nil:
		return 0, err
	case len(val) != 8:
		return 0, ErrDamaged
	}
	return binary.BigEndian.Uint64(val), nil
}

// Moved returns where the account has moved to, "" while it is here.
func Moved(db store.Reader) (string, error) {
	host, err := read(db, KeyMoved)
	if err != nil {
		return "", fmt.Errorf("read where the account has moved to: %w", err)
	}
	return string(host), nil
}

// SetDropped records that events up to seq were dropped.
func SetDropped(b store.Batch, seq uint64) {
	b.Set(KeyDropped, binary.BigEndian.AppendUint64(nil, seq))
}
