package repo

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/ipfs/go-cid"
	"github.com/tidings-dev/tidings/internal/store"
)

// Action is what a write does to a record.
type Action string

const (
	Create Action = "create" // the record must not exist
	Update Action = "update" // the record must exist
	Delete Action = "delete" // the record must exist
)

// Write is one change to one record.
type Write struct {
	Action     Action
	Collection string // NSID
	RKey       string // record key, chosen by the caller
	Record     []byte // canonical DAG-CBOR, at most 1 MiB; nil for Delete
}

// Result is what an Apply did.
type Result struct {
	Commit cid.Cid
	Rev    string
	CIDs   []cid.Cid // one per write; cid.Undef for Delete
}

// Config describes a repository. Dir, DID and Key are required.
type Config struct {
	Dir string
	DID string
	Key atcrypto.PrivateKey

	Handle  string           // goes into the #identity event of a new repository; may be empty
	Now     func() time.Time // nil: time.Now
	Reserve uint64           // bytes of free disk below which writes are refused; 0: 1 GiB

	CacheSize    int64         // bytes of blocks that are kept in memory; 0: 6 MiB
	EventsMaxAge time.Duration // how long firehose frames are kept; 0: 72 h
	EventsLimit  int64         // bytes of firehose frames that are kept; 0: 1 GiB

	FS     vfs.FS // nil: the operating system's
	Logger *slog.Logger
}

func (c Config) withDefaults() (Config, error) {
	if c.Dir == "" {
		return c, errors.New("a directory is needed")
	}
	if _, err := syntax.ParseDID(c.DID); err != nil {
		return c, fmt.Errorf("%q is not a DID: %w", c.DID, err)
	}
	if c.Key == nil {
		return c, errors.New("a signing key is needed")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Reserve == 0 {
		c.Reserve = 1 << 30
	}
	if c.CacheSize == 0 {
		c.CacheSize = 6 << 20
	}
	if c.EventsMaxAge == 0 {
		c.EventsMaxAge = 72 * time.Hour
	}
	if c.EventsLimit == 0 {
		c.EventsLimit = 1 << 30
	}
	if c.FS == nil {
		c.FS = vfs.Default
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Logger = c.Logger.With("component", "repo")
	return c, nil
}

// Repo is an open repository. Its methods are safe to call together.
type Repo struct {
	cfg       Config
	store     *store.Store
	blobs     blobFiles
	nodes     nodeCache
	requests  chan request // unbuffered: who waits can leave
	tidying   chan chan error
	closing   chan struct{}          // closed by Close
	stopped   chan struct{}          // closed by the writer
	suspended atomic.Pointer[error]  // what writes are refused with
	place     atomic.Pointer[string] // where the account has moved to; nil: it is here
	rate      *rate                  // of events
	idle      chan struct{}          // closed when the last reader has left a closed repository

	mu      sync.Mutex
	view    *view         // the newest
	views   int           // open ones
	changed chan struct{} // closed, and another made, when view changes
	closed  bool
}

// Init makes a repository whose first commit holds these records, and opens
// it. The event log has #identity and #account before that commit, and #sync
// after it. A directory that holds a repository is refused with ErrRepoExists;
// what a crash here leaves behind is not a repository, and Init may be called
// again.
//
// Keep one of the first records for ever (a profile): indigo's verifier, which
// relays run, misjudges a commit that replaces the only record.
func Init(cfg Config, first []Write) (*Repo, error) {
	full, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("make repository: %w", err)
	}
	if exists(full.FS, full.Dir) {
		return nil, fmt.Errorf("make repository in %s: %w", full.Dir, ErrRepoExists)
	}
	if err := checkWrites(first); err != nil {
		return nil, fmt.Errorf("make repository: %w", err)
	}
	if err := initDir(full, first); err != nil {
		return nil, fmt.Errorf("make repository in %s: %w", full.Dir, err)
	}
	return Open(cfg)
}

// initDir makes the repository beside its place and moves it there when it is
// complete, so that a directory either is a repository or is none.
func initDir(cfg Config, first []Write) error {
	var suffix [4]byte
	rand.Read(suffix[:])
	dir := cfg.Dir + ".new-" + hex.EncodeToString(suffix[:])
	parent := cfg.FS.PathDir(cfg.Dir)
	if err := cfg.FS.MkdirAll(parent, 0o700); err != nil {
		return err
	}
	if err := initStore(cfg, dir, first); err != nil {
		return errors.Join(err, cfg.FS.RemoveAll(dir))
	}
	if err := cfg.FS.Rename(dir, cfg.Dir); err != nil {
		return errors.Join(err, cfg.FS.RemoveAll(dir))
	}
	d, err := cfg.FS.OpenDir(parent)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func initStore(cfg Config, dir string, first []Write) (err error) {
	if err := cfg.FS.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	s, err := openStore(cfg, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	w, err := newWriter(cfg, s, state{Head: Head{DID: cfg.DID}})
	if err != nil {
		return err
	}
	if err := w.ready(); err != nil {
		return err
	}
	b := s.NewBatch()
	for _, q := range []request{
		{notices: []Notice{Identity, Account}},
		{writes: first, commit: true, notices: []Notice{Sync}},
	} {
		q.ctx = context.Background()
		if _, err := w.serve(b, q); err != nil {
			return err
		}
	}
	return w.finish(b, 0)
}

// Open opens the repository in cfg.Dir. ErrNotExist if there is none. It
// refuses one of another DID, one that another key signed, and one that a
// newer program wrote.
func Open(cfg Config) (*Repo, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("open repository: %w", err)
	}
	if !exists(cfg.FS, cfg.Dir) {
		return nil, fmt.Errorf("open repository in %s: %w", cfg.Dir, ErrNotExist)
	}
	s, err := openStore(cfg, cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open repository in %s: %w", cfg.Dir, err)
	}
	r, err := open(cfg, s)
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("open repository in %s: %w", cfg.Dir, err)
	}
	return r, nil
}

func open(cfg Config, s *store.Store) (*Repo, error) {
	on, err := loadHead(cfg, s)
	if err != nil {
		return nil, err
	}
	w, err := newWriter(cfg, s, on)
	if err != nil {
		return nil, err
	}
	if w.tree, err = loadTree(on.Data, w.loadNode); err != nil {
		return nil, err
	}
	if err := w.files.sweep(&w.blobs, cfg.Logger); err != nil {
		return nil, err
	}
	r := &Repo{
		cfg:      cfg,
		rate:     w.rate,
		store:    s,
		blobs:    w.files,
		requests: make(chan request),
		tidying:  make(chan chan error),
		closing:  make(chan struct{}),
		stopped:  make(chan struct{}),
		idle:     make(chan struct{}),
		changed:  make(chan struct{}),
	}
	place, err := storedPlace(s)
	if err != nil {
		return nil, err
	}
	if place != "" {
		r.place.Store(&place)
	}
	r.publish(on)
	go r.run(w)
	return r, nil
}

func loadHead(cfg Config, db pebble.Reader) (state, error) {
	pub, err := cfg.Key.PublicKey()
	if err != nil {
		return state{}, fmt.Errorf("read signing key: %w", err)
	}
	return loadHeadOf(cfg.DID, pub, db)
}

// loadHeadOf loads a head that this key signed.
func loadHeadOf(did string, key atcrypto.PublicKey, db pebble.Reader) (state, error) {
	val, err := store.Read(db, keyHead)
	if errors.Is(err, pebble.ErrNotFound) {
		return state{}, fmt.Errorf("it has no head: %w", errDamaged)
	}
	if err != nil {
		return state{}, err
	}
	s, commit, err := decodeState(val)
	if err != nil {
		return state{}, err
	}
	if s.DID != did {
		return state{}, fmt.Errorf("it is the repository of %s, not of %s: %w", s.DID, did, ErrForeign)
	}
	if err := commit.VerifySignature(key); err != nil {
		return state{}, fmt.Errorf("its head %s %w (%s): give the key that belongs to it: %w", s.Commit, ErrKey, key.DIDKey(), err)
	}
	return s, nil
}

// Exists reports whether dir holds a repository. It doesn't open it.
func Exists(dir string) bool { return exists(vfs.Default, dir) }

func exists(fs vfs.FS, dir string) bool {
	desc, err := pebble.Peek(dir, fs)
	return err == nil && desc.Exists
}

// Head returns the durable head, the last one also when closed.
func (r *Repo) Head() Head {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.view.Head
}

// Health returns why writes are or soon will be refused, nil if they aren't.
func (r *Repo) Health() error {
	r.mu.Lock()
	closed, on := r.closed, r.view.state
	r.mu.Unlock()
	if closed {
		return ErrClosed
	}
	if err := r.store.Health(); err != nil {
		return err
	}
	if err := r.Suspended(); err != nil {
		return err
	}
	if err := r.elsewhere(); err != nil {
		return err
	}
	_, _, err := on.tick(r.cfg.Now())
	return err
}

// closeWait is how long Close waits for readers, such as an Export whose
// client is slow.
const closeWait = 5 * time.Second

// Close lets the writes that have begun finish and closes the database. It may
// be called twice. If readers don't leave in time it says so, and the database
// is closed when they do.
func (r *Repo) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		r.writerStopped()
		return nil
	}
	r.closed = true
	r.mu.Unlock()
	close(r.closing)
	if !r.writerStopped() {
		return r.store.Close() // which says why
	}
	r.release(r.view)
	select {
	case <-r.idle:
		return r.store.Close()
	case <-time.After(closeWait):
		go func() {
			<-r.idle
			r.store.Close()
		}()
		return fmt.Errorf("close repository in %s: a reader still holds it", r.cfg.Dir)
	}
}

// writerStopped waits for the writer, but not if that may never stop.
func (r *Repo) writerStopped() bool {
	select {
	case <-r.stopped:
		return true
	case <-r.store.Dead():
		return false
	}
}
