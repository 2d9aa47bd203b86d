package repo

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	indigo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
)

// maxAhead is how far a revision may be ahead of the clock. Relays drop
// commits that are five minutes ahead.
const maxAhead = time.Minute

// Head is the durable state of the repository.
type Head struct {
	DID    string
	Rev    string  // TID
	Commit cid.Cid // the signed commit
	Data   cid.Cid // the root of its tree
	Seq    uint64  // sequence number of the last firehose event
}

// state is a head with what the next commit must know.
type state struct {
	Head
	block  []byte // the signed commit
	logged uint64 // bytes of frames ever logged
}

func (s state) encode() []byte {
	out := binary.BigEndian.AppendUint64(nil, s.Seq)
	out = binary.BigEndian.AppendUint64(out, s.logged)
	return append(out, s.block...)
}

func decodeState(val []byte) (state, indigo.Commit, error) {
	var commit indigo.Commit
	if len(val) < 16 {
		return state{}, commit, errDamaged
	}
	block := val[16:]
	if err := commit.UnmarshalCBOR(bytes.NewReader(block)); err != nil {
		return state{}, commit, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if err := commit.VerifyStructure(); err != nil {
		return state{}, commit, fmt.Errorf("%w: %w", errDamaged, err)
	}
	return state{
		Head: Head{
			DID:    commit.DID,
			Rev:    commit.Rev,
			Commit: CIDOf(block),
			Data:   commit.Data,
			Seq:    binary.BigEndian.Uint64(val),
		},
		block:  block,
		logged: binary.BigEndian.Uint64(val[8:]),
	}, commit, nil
}

// tick gives the next sequence number and revision, in microseconds: each later
// than every one before it, also when the clock was set back or the repository
// restored. They are the same unless a clock that was ahead took the sequence
// numbers with it; those may stay there, a revision may not.
func (s state) tick(now time.Time) (seq, rev uint64, err error) {
	at := uint64(now.UnixMicro())
	rev = at
	if s.Rev != "" {
		rev = max(rev, uint64(syntax.TID(s.Rev).Time().UnixMicro())+1)
	}
	if ahead := time.UnixMicro(int64(rev)).Sub(now); ahead > maxAhead {
		return 0, 0, fmt.Errorf("%w: its last revision %s is %s ahead, and relays refuse what is dated ahead; set this machine's clock right, or, if it is, mend the repository with `tidings hold repair`",
			ErrClock, s.Rev, ahead.Round(time.Second))
	}
	seq = max(rev, s.Seq+1)
	if time.UnixMicro(int64(seq)).Sub(now) <= maxAhead {
		rev = seq
	}
	return seq, rev, nil
}

// sign makes the commit of a tree.
func sign(did string, key atcrypto.PrivateKey, data cid.Cid, rev string) ([]byte, error) {
	commit := indigo.Commit{DID: did, Version: indigo.ATPROTO_REPO_VERSION, Data: data, Rev: rev}
	if err := commit.Sign(key); err != nil {
		return nil, fmt.Errorf("sign commit: %w", err)
	}
	var block bytes.Buffer
	if err := commit.MarshalCBOR(&block); err != nil {
		return nil, fmt.Errorf("encode commit: %w", err)
	}
	return block.Bytes(), nil
}
