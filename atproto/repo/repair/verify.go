package repair

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	indigo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/atproto/repo/layout"
	"github.com/tidings-dev/tidings/internal/store"
)

// Part is a part of a repo that can be damaged.
type Part string

const (
	PartHead   Part = "head"
	PartClock  Part = "clock" // the head's rev is ahead of it
	PartTree   Part = "tree"
	PartRecord Part = "record"
	PartIndex  Part = "index"
	PartEvents Part = "event log"
	PartBlob   Part = "blob"
	PartFile   Part = "file" // of the database, which can't be read at all
)

// Problem is one finding of Verify.
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

// Report counts the data that Verify has read.
type Report struct {
	Head     repo.Head // zero if it can't be read
	Nodes    int64
	Records  int64
	Events   int64
	Blobs    int64 // stored ones
	Missing  int64 // blobs that a record refers to and that were not uploaded; no damage
	Problems int64
}

// Read is called after each step of a verification. noun is "records", "events" or "blobs".
type Read func(noun string, done int64)

// Verify reads all of a repo and calls found with each problem, in this
// order: the signature and the date of the head; every node of the tree, and
// every record with its index entry; nodes that are stored and not in the tree;
// index entries without a record; the events, with their signatures by cfg.Key or
// an old key, and that each follows from the one before; the blobs. It keeps only
// the path to the current node in memory.
//
// read, if not nil, is called with how many records, then how many events and then how many
// blobs were read.
//
// An error means that the repo could not be read, not that it is damaged.
func Verify(ctx context.Context, cfg repo.Config, old []atcrypto.PublicKey, found func(Problem), read Read) (Report, error) {
	cfg, err := cfg.WithDefaults()
	if err != nil {
		return Report{}, fmt.Errorf("verify repo: %w", err)
	}
	s, err := layout.OpenDamaged(cfg.Dir, cfg.Layout())
	if unreadable(err) {
		found(Problem{PartFile, "", firstLine(err)})
		return Report{Problems: 1}, nil
	}
	if err != nil {
		return Report{}, fmt.Errorf("verify repo in %s: %w", cfg.Dir, err)
	}
	defer s.Close()
	v, err := newVerifier(cfg, s, old, found, read)
	if err != nil {
		return Report{}, fmt.Errorf("verify repo: %w", err)
	}
	err = v.run(ctx)
	if unreadable(err) {
		v.report(PartFile, "", "%s", firstLine(err))
		err = nil
	}
	if err != nil {
		return v.counts, fmt.Errorf("verify repo in %s: %w", cfg.Dir, err)
	}
	return v.counts, nil
}

// unreadable reports whether an error means that a file of the database is damaged or missing.
func unreadable(err error) bool {
	return store.IsCorruption(err) || errors.Is(err, fs.ErrNotExist)
}

// firstLine returns Pebble's message about a damaged file without its details.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

type verifier struct {
	cfg    repo.Config
	db     store.Reader
	keys   []atcrypto.PublicKey // the account's, the current one first
	found  func(Problem)
	read   Read
	damage error // of the database's log
	counts Report

	head    layout.State // zero if it is damaged
	oldKey  bool         // an old key signed the head
	first   string       // the first rev in the event log
	dropped uint64       // the last event that was dropped
	invalid int64        // nodes of the tree that can't be used
	indexed int64        // index entries of the records
	refs    refCounts
}

func newVerifier(cfg repo.Config, s *store.Store, old []atcrypto.PublicKey, found func(Problem), read Read) (*verifier, error) {
	key, err := cfg.Key.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("read signing key: %w", err)
	}
	if read == nil {
		read = func(string, int64) {}
	}
	return &verifier{cfg: cfg, db: s, damage: s.Damage(), keys: append([]atcrypto.PublicKey{key}, old...), found: found, read: read}, nil
}

func (v *verifier) report(part Part, where, format string, args ...any) {
	v.counts.Problems++
	v.found(Problem{part, where, fmt.Sprintf(format, args...)})
}

func (v *verifier) run(ctx context.Context) error {
	if v.damage != nil {
		v.report(PartFile, "", "%s", firstLine(v.damage))
	}
	if err := v.readHead(); err != nil {
		return err
	}
	for _, check := range []func(context.Context) error{v.records, v.leakedNodes, v.strayIndex, v.events, v.blobs, v.idleBlobs} {
		if err := check(ctx); err != nil {
			return err
		}
	}
	return nil
}

// readHead reads and verifies the head. It returns an error for the repo of another
// account, which is not damaged.
func (v *verifier) readHead() error {
	val, err := store.Read(v.db, layout.KeyHead)
	if errors.Is(err, store.ErrNotFound) {
		v.report(PartHead, "", "missing")
		return nil
	}
	if err != nil {
		v.report(PartHead, "", "can't be read: %v", err)
		return nil
	}
	head, commit, err := layout.DecodeState(val)
	if err != nil {
		v.report(PartHead, "", "invalid")
		return nil
	}
	if head.DID != v.cfg.DID {
		return fmt.Errorf("%w: it is the repo of %s, not of %s", repo.ErrForeign, head.DID, v.cfg.DID)
	}
	switch signer := v.signer(&commit); {
	case signer == nil:
		v.report(PartHead, head.Commit.String(), "not signed by this account's key (%s): either the key is another, or the head is damaged", v.keys[0].DIDKey())
		return nil
	case !signer.Equal(v.keys[0]):
		v.oldKey = true
		v.report(PartHead, head.Commit.String(), "still signed by an old key (%s): a key rotation was interrupted", signer.DIDKey())
	}
	v.head, v.counts.Head = head, head.Head
	if ahead := head.Ahead(v.cfg.Now()); ahead > layout.MaxAhead {
		v.report(PartClock, head.Rev, "the head is %s ahead of the system clock", ahead.Round(time.Second))
	}
	return nil
}

// signer returns the key of this account that signed a commit, nil if none did.
func (v *verifier) signer(commit *indigo.Commit) atcrypto.PublicKey {
	for _, key := range v.keys {
		if commit.VerifySignature(key) == nil {
			return key
		}
	}
	return nil
}

// root returns the root of the signed tree, Undef if it is unknown.
func (v *verifier) root() cid.Cid { return v.head.Data }

// scan calls each with every key under a prefix, without the prefix.
func (v *verifier) scan(ctx context.Context, prefix string, part Part, each func(key []byte, it store.Iterator) error) error {
	it, err := layout.Iterate(v.db, prefix)
	if err != nil {
		return fmt.Errorf("read %s: %w", part, err)
	}
	defer it.Close()
	last := ""
	for ok := it.First(); ok; ok = it.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		last = fmt.Sprintf("%x", it.Key()[len(prefix):])
		if err := each(it.Key()[len(prefix):], it); err != nil {
			return err
		}
	}
	if err := it.Error(); err != nil {
		v.report(part, "after "+orStart(last), "can't be read: %v", err)
	}
	return nil
}

func (v *verifier) count(ctx context.Context, prefix string, part Part) (n int64, err error) {
	err = v.scan(ctx, prefix, part, func([]byte, store.Iterator) error { n++; return nil })
	return n, err
}

func orStart(path string) string {
	if path == "" {
		return "the start"
	}
	return path
}
