package repo

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	indigo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/repo/layout"
	"github.com/tidings-dev/tidings/internal/store"
)

func loadHead(cfg Config, db store.Reader) (layout.State, error) {
	pub, err := cfg.Key.PublicKey()
	if err != nil {
		return layout.State{}, fmt.Errorf("read signing key: %w", err)
	}
	return loadHeadSignedBy(cfg.DID, pub, db)
}

func loadHeadSignedBy(did string, key atcrypto.PublicKey, db store.Reader) (layout.State, error) {
	val, err := store.Read(db, layout.KeyHead)
	if errors.Is(err, store.ErrNotFound) {
		return layout.State{}, fmt.Errorf("head is missing: %w", layout.ErrDamaged)
	}
	if err != nil {
		return layout.State{}, err
	}
	s, commit, err := layout.DecodeState(val)
	if err != nil {
		return layout.State{}, err
	}
	if s.DID != did {
		return layout.State{}, fmt.Errorf("%w: it is the repo of %s, not of %s: configure the right one, or keep the new one in a folder of its own", ErrForeign, s.DID, did)
	}
	if err := commit.VerifySignature(key); err != nil {
		return layout.State{}, fmt.Errorf("%w: head %s is not signed by %s; configure the key that signed it: %w", ErrKey, s.Commit, key.DIDKey(), err)
	}
	return s, nil
}

// tick returns the sequence number and the rev of the next event, in
// microseconds. Each is greater than all before it, even if the clock was set
// back or the repo restored. They are equal, unless a clock that was ahead
// advanced the sequence numbers: those may stay ahead, a rev may not.
func tick(s layout.State, now time.Time) (seq, rev uint64, err error) {
	rev = uint64(now.UnixMicro())
	if s.Rev != "" {
		rev = max(rev, uint64(syntax.TID(s.Rev).Time().UnixMicro())+1)
	}
	if ahead := time.UnixMicro(int64(rev)).Sub(now); ahead > layout.MaxAhead {
		return 0, 0, fmt.Errorf("%w: its last rev %s is %s ahead, and relays refuse commits that are ahead; correct the system clock, or, if it is right, repair the repo with `tidings hold repair`",
			ErrClock, s.Rev, ahead.Round(time.Second))
	}
	seq = max(rev, s.Seq+1)
	if time.UnixMicro(int64(seq)).Sub(now) <= layout.MaxAhead {
		rev = seq
	}
	return seq, rev, nil
}

// commitOf signs a commit of a tree and returns the state after it.
func (w *writer) commitOf(data cid.Cid, seq, rev uint64) (now layout.State, err error) {
	now = layout.State{Logged: w.next.Logged, Head: Head{
		DID:  w.cfg.DID,
		Rev:  syntax.NewTID(int64(rev), w.clockID).String(),
		Data: data,
		Seq:  seq,
	}}
	now.Block, err = sign(w.cfg.DID, w.cfg.Key, data, now.Rev)
	now.Commit = block.CIDOf(now.Block)
	return now, err
}

func sign(did string, key atcrypto.PrivateKey, data cid.Cid, rev string) ([]byte, error) {
	commit := indigo.Commit{DID: did, Version: indigo.ATPROTO_REPO_VERSION, Data: data, Rev: rev}
	if err := commit.Sign(key); err != nil {
		return nil, fmt.Errorf("sign commit: %w", err)
	}
	var signed bytes.Buffer
	if err := commit.MarshalCBOR(&signed); err != nil {
		return nil, fmt.Errorf("encode commit: %w", err)
	}
	return signed.Bytes(), nil
}

// restate adds a fresh commit of a tree to the batch, with a #sync instead of a
// #commit, which replaces any state that a subscriber has. A rev that is ahead
// of the clock was accepted by no relay and is abandoned.
func (w *writer) restate(b store.Batch, data cid.Cid) error {
	now, known := w.cfg.Now(), w.next
	if known.Rev != "" && known.Ahead(now) > layout.MaxAhead {
		known.Rev = ""
	}
	seq, rev, err := tick(known, now)
	if err != nil {
		return err
	}
	if w.next, err = w.commitOf(data, seq, rev); err != nil {
		return err
	}
	return w.addNotice(b, Sync)
}

// Restatement is a change of a stopped repo that subscribers learn of by a
// #sync.
type Restatement struct {
	State    layout.State // before it
	Data     cid.Cid      // root of the tree for a fresh commit; Undef: State's commit stays
	Identity bool         // also log #identity, before the #sync
	Dropped  uint64       // the last event that is no longer kept; 0: as before
}

// Restate adds a Restatement to a batch of a stopped repo's database and
// commits the batch. It is for package repair and for Rotate; an open repo
// has its own writer.
func Restate(cfg Config, s *store.Store, b store.Batch, r Restatement) (Head, error) {
	w, err := newWriter(cfg, s, r.State)
	if err != nil {
		return Head{}, err
	}
	last := max(r.State.Seq, r.Dropped)
	w.next.Seq = last
	if r.Dropped > 0 {
		layout.SetDropped(b, r.Dropped)
	}
	if r.Identity {
		if err := w.addIdentity(b); err != nil {
			return Head{}, err
		}
	}
	if r.Data.Defined() {
		err = w.restate(b, r.Data)
	} else {
		err = w.addNotice(b, Sync)
	}
	if err != nil {
		return Head{}, err
	}
	if err := w.finish(b, last); err != nil {
		return Head{}, err
	}
	return w.next.Head, nil
}

// addIdentity logs #identity even if the rev is ahead of the clock.
func (w *writer) addIdentity(b store.Batch) error {
	rev := w.next.Rev
	if w.next.Ahead(w.cfg.Now()) > layout.MaxAhead {
		w.next.Rev = ""
	}
	err := w.addNotice(b, Identity)
	w.next.Rev = rev
	return err
}
