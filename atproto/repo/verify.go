package repo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	indigo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/cockroachdb/pebble/v2"
	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/internal/store"
)

// Part is a part of a repository that can be damaged.
type Part string

const (
	PartHead   Part = "head"
	PartClock  Part = "clock" // the head's rev is ahead of it
	PartTree   Part = "tree"
	PartRecord Part = "record"
	PartIndex  Part = "index"
	PartLog    Part = "event log"
	PartBlob   Part = "blob"
	PartFile   Part = "file" // of the database, which can't be read at all
)

// Problem is one thing that Verify finds wrong.
type Problem struct {
	Part  Part
	Where string // a path, a CID, a sequence number; may be empty
	Text  string
}

func (p Problem) String() string {
	if p.Where == "" {
		return fmt.Sprintf("%s: %s", p.Part, p.Text)
	}
	return fmt.Sprintf("%s %s: %s", p.Part, p.Where, p.Text)
}

// Report is what Verify looked at.
type Report struct {
	Head     Head // zero if it can't be read
	Nodes    int64
	Records  int64
	Events   int64
	Blobs    int64 // that are stored
	Missing  int64 // blobs that a record refers to and nobody has uploaded; no damage
	Problems int64
}

// Verify reads all of a repository and tells found what is wrong, in the order
// in which it is met: the head's signature and date; every node of the tree from
// the root on and every record, their bytes and places; that no node is
// stored which isn't in the tree; the index; the frames of the event log, with
// their signatures, by Key or one of old, and that each follows from the one
// before; the blobs. It changes nothing, and holds no more than the path to the
// current node. No other process may have the repository open.
//
// The error is for what keeps it from looking, not for what it finds.
func Verify(ctx context.Context, cfg Config, old []atcrypto.PublicKey, found func(Problem)) (Report, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return Report{}, fmt.Errorf("verify repository: %w", err)
	}
	s, err := openDamaged(cfg)
	if pebble.IsCorruptionError(err) {
		found(Problem{PartFile, "", firstLine(err)})
		return Report{Problems: 1}, nil
	}
	if err != nil {
		return Report{}, fmt.Errorf("verify repository in %s: %w", cfg.Dir, err)
	}
	defer s.Close()
	v, err := newVerifier(cfg, s, old, found)
	if err != nil {
		return Report{}, fmt.Errorf("verify repository: %w", err)
	}
	err = v.run(ctx)
	if pebble.IsCorruptionError(err) {
		v.wrong(PartFile, "", "%s", firstLine(err))
		err = nil
	}
	if err != nil {
		return v.report, fmt.Errorf("verify repository in %s: %w", cfg.Dir, err)
	}
	return v.report, nil
}

// firstLine is what Pebble says of a damaged file, without the details that it
// carries along.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

type verifier struct {
	cfg    Config
	db     pebble.Reader
	keys   []atcrypto.PublicKey // the account's, the current one first
	found  func(Problem)
	damage error // of the database's log
	report Report

	head  state  // zero if it is damaged
	older bool   // an older key signed it
	begin string // the first rev that the event log tells of
	gone  uint64 // the last event that it has dropped
	lost  int64  // nodes of the tree that can't be used
	index int64  // entries that records have
	refs  blobUses
}

func newVerifier(cfg Config, s *store.Store, old []atcrypto.PublicKey, found func(Problem)) (*verifier, error) {
	key, err := cfg.Key.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("read signing key: %w", err)
	}
	return &verifier{cfg: cfg, db: s, damage: s.Damage(), keys: append([]atcrypto.PublicKey{key}, old...), found: found}, nil
}

func (v *verifier) wrong(part Part, where, format string, args ...any) {
	v.report.Problems++
	v.found(Problem{part, where, fmt.Sprintf(format, args...)})
}

func (v *verifier) run(ctx context.Context) error {
	if v.damage != nil {
		v.wrong(PartFile, "", "%s", firstLine(v.damage))
	}
	if err := v.readHead(); err != nil {
		return err
	}
	for _, look := range []func(context.Context) error{v.records, v.leaks, v.strayIndex, v.log, v.blobs, v.idle} {
		if err := look(ctx); err != nil {
			return err
		}
	}
	return nil
}

// readHead is an error for another account's repository and for the wrong key:
// those are no damage.
func (v *verifier) readHead() error {
	val, err := store.Read(v.db, keyHead)
	if errors.Is(err, pebble.ErrNotFound) {
		v.wrong(PartHead, "", "it is missing")
		return nil
	}
	if err != nil {
		v.wrong(PartHead, "", "it can't be read: %v", err)
		return nil
	}
	on, commit, err := decodeState(val)
	if err != nil {
		v.wrong(PartHead, "", "it can't be understood")
		return nil
	}
	if on.DID != v.cfg.DID {
		return fmt.Errorf("it is the repository of %s, not of %s", on.DID, v.cfg.DID)
	}
	switch signer := v.signer(&commit); {
	case signer == nil:
		v.wrong(PartHead, on.Commit.String(), "it is not signed by this account's key (%s): the key is another, or the head is damaged", v.keys[0].DIDKey())
		return nil
	case !signer.Equal(v.keys[0]):
		v.older = true
		v.wrong(PartHead, on.Commit.String(), "it is still signed by an older key (%s): a change of keys was cut short", signer.DIDKey())
	}
	v.head, v.report.Head = on, on.Head
	if ahead := on.ahead(v.cfg.Now()); ahead > maxAhead {
		v.wrong(PartClock, on.Rev, "the head is dated %s ahead of this machine's clock", ahead.Round(time.Second))
	}
	return nil
}

// ahead is how far the state is dated ahead.
func (s state) ahead(now time.Time) time.Duration { return syntax.TID(s.Rev).Time().Sub(now) }

// signer is the key of this account that signed a commit, nil if none did.
func (v *verifier) signer(commit *indigo.Commit) atcrypto.PublicKey {
	for _, key := range v.keys {
		if commit.VerifySignature(key) == nil {
			return key
		}
	}
	return nil
}

// root is that of the signed tree, Undef if nothing is known of it.
func (v *verifier) root() cid.Cid { return v.head.Data }
