package repo

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/mst"
	"github.com/tidings-dev/tidings/atproto/repo/layout"
	"github.com/tidings-dev/tidings/atproto/repo/relaylimit"
	"github.com/tidings-dev/tidings/internal/store"
)

// Action is the effect of a write on a record.
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
	Record     []byte // canonical DAG-CBOR, at most MaxRecord bytes; nil for Delete
}

// Result is the result of an Apply.
type Result struct {
	Commit cid.Cid
	Rev    string
	CIDs   []cid.Cid // one per write; cid.Undef for Delete
}

// Head is the durable state of the repo.
type Head = layout.Head

// Config describes a repo. Dir, DID and Key are required.
type Config struct {
	Dir string
	DID string
	Key atcrypto.PrivateKey

	Handle  string           // for the #identity event of a new repo; may be empty
	Now     func() time.Time // nil: time.Now
	Reserve uint64           // bytes of free disk below which writes are refused; 0: 1 GiB

	CacheSize    int64         // bytes of blocks that are kept in memory; 0: 6 MiB
	EventsMaxAge time.Duration // how long events are kept; 0: 72 h
	EventsLimit  int64         // bytes of frames that are kept; 0: 1 GiB

	FS     vfs.FS // nil: the operating system's
	Logger *slog.Logger
}

// WithDefaults checks the required fields and sets the defaults of the others.
func (c Config) WithDefaults() (Config, error) {
	if c.Dir == "" {
		return c, errors.New("directory is required")
	}
	if _, err := syntax.ParseDID(c.DID); err != nil {
		return c, fmt.Errorf("invalid DID %q: %w", c.DID, err)
	}
	if c.Key == nil {
		return c, errors.New("signing key is required")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Reserve == 0 {
		c.Reserve = store.DefaultReserve
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

// Layout returns the options of the database.
func (c Config) Layout() layout.Options {
	return layout.Options{FS: c.FS, Reserve: c.Reserve, CacheSize: c.CacheSize, Logger: c.Logger}
}

// Repo is an open repo. Its methods may be called concurrently.
type Repo struct {
	cfg       Config
	store     *store.Store
	blobs     layout.BlobFiles
	nodes     *mst.Cache
	requests  chan request           // unbuffered, so that a waiting caller can give up
	closing   chan struct{}          // closed by Close
	stopped   chan struct{}          // closed by the writer
	suspended atomic.Pointer[error]  // the error of writes; nil: not suspended
	movedTo   atomic.Pointer[string] // where the account has moved to; nil: it is here
	rate      *relaylimit.Rate       // of events
	copying   sync.RWMutex           // read-locked while the files of blobs are copied
	idle      chan struct{}          // closed when the last reader has left a closed repo

	mu      sync.Mutex
	view    *view         // the newest
	views   int           // open ones
	changed chan struct{} // closed and replaced when view changes
	closed  bool
}

// Exists reports whether dir holds a repo. It doesn't open it.
func Exists(dir string) bool { return layout.Exists(vfs.Default, dir) }

// Open opens the repo in cfg.Dir. Errors: ErrNotExist, ErrForeign, ErrKey,
// and that of a database which a newer program wrote.
func Open(cfg Config) (*Repo, error) {
	cfg, err := cfg.WithDefaults()
	if err != nil {
		return nil, fmt.Errorf("open repo: %w", err)
	}
	if !layout.Exists(cfg.FS, cfg.Dir) {
		return nil, fmt.Errorf("open repo in %s: %w", cfg.Dir, ErrNotExist)
	}
	s, err := layout.Open(cfg.Dir, cfg.Layout())
	if err != nil {
		return nil, fmt.Errorf("open repo in %s: %w", cfg.Dir, err)
	}
	r, err := open(cfg, s)
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("open repo in %s: %w", cfg.Dir, err)
	}
	return r, nil
}

func open(cfg Config, s *store.Store) (*Repo, error) {
	head, err := loadHead(cfg, s)
	if err != nil {
		return nil, err
	}
	w, err := newWriter(cfg, s, head)
	if err != nil {
		return nil, err
	}
	if err := w.loadTree(); err != nil {
		return nil, err
	}
	if err := w.files.Sweep(s, cfg.Logger); err != nil {
		return nil, err
	}
	r := &Repo{
		cfg:      cfg,
		rate:     w.rate,
		store:    s,
		blobs:    w.files,
		nodes:    mst.NewCache(),
		requests: make(chan request),
		closing:  make(chan struct{}),
		stopped:  make(chan struct{}),
		idle:     make(chan struct{}),
		changed:  make(chan struct{}),
	}
	host, err := layout.Moved(s)
	if err != nil {
		return nil, err
	}
	if host != "" {
		r.movedTo.Store(&host)
	}
	r.publish(head)
	go r.run(w)
	return r, nil
}

// Head returns the durable head, of a closed repo the last one.
func (r *Repo) Head() Head {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.view.Head
}

// Health returns the reason for which writes are refused or soon will be; nil if
// there is none.
func (r *Repo) Health() error {
	r.mu.Lock()
	closed, head := r.closed, r.view.State
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
	if err := r.deactivated(); err != nil {
		return err
	}
	_, _, err := tick(head, r.cfg.Now())
	return err
}

// Delay returns how long the next commit should be delayed so that relays, which
// limit the rate of events, can follow. Apply ignores it; see package batch.
func (r *Repo) Delay() time.Duration { return r.rate.Delay(time.Now()) }

// Closing returns a channel that is closed when Close is called.
func (r *Repo) Closing() <-chan struct{} { return r.closing }

// closeWait is how long Close waits for readers, such as an Export to a slow
// client.
const closeWait = 5 * time.Second

// Close lets started writes finish and closes the database. It may be called
// twice. If readers don't leave in time it returns an error, and the database is
// closed when they do.
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
		return r.store.Close() // its error is the reason
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
		return fmt.Errorf("close repo in %s: a reader is still active", r.cfg.Dir)
	}
}

// writerStopped waits for the writer. It returns false if the database has
// failed, since the writer may then never stop.
func (r *Repo) writerStopped() bool {
	select {
	case <-r.stopped:
		return true
	case <-r.store.Dead():
		return false
	}
}
