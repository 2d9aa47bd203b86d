package counter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/redis/go-redis/v9"

	"github.com/tidings-dev/tidings/internal/store"
)

// KeepDays is how many days have numbers of their own, today included.
const KeepDays = 400

// Config says how a Counter publishes. The zero value counts on this disk only.
type Config struct {
	Redis         redis.UniversalClient // nil: nothing is published
	Name          string                // of the installation: registries of one name are summed; empty: "default"
	Interval      time.Duration         // between two rounds; 0: 2 s
	CompareWithin time.Duration         // within which all that Redis has is compared, a bit at a time; 0: 1 h

	// Instance is the same for all processes that can't run at the same time
	// since they lock the same folder, and differs in a copy of that folder.
	Instance  string
	Host      string                    // shown to the operator
	Journal   func() string             // id of the journal that is folded; nil: none
	LastEvent func(stream uint8) uint64 // the journal's last event when Open is called; nil: no event is folded again
	// HasTag reports whether the registry's storage has a tag. It is asked before the
	// numbers of a deleted tag are dropped; nil: what was folded is trusted.
	HasTag     func(repository, tag string) (bool, error)
	AskTimeout time.Duration // how long the first Fold waits for Redis; 0: 3 s
	WatchFor   time.Duration // how long another folder's record is watched for signs of life; 0: 45 s

	MaxChildren int                     // children of indexes kept on disk; 0: 1<<20
	Learn       func(all ...IndexEntry) // told what is known of indexes, from a Fold or another replica; nil: nobody is

	Now     func() time.Time // nil: time.Now
	Logger  *slog.Logger     // nil: silent
	Metrics *Metrics         // nil: silent
}

// Counter folds facts into numbers. Safe for concurrent use.
type Counter struct {
	db   *store.Store
	cfg  Config
	log  *slog.Logger
	keys keyspace
	run  string // of this process; empty without Redis

	atOpen   sequences // what was folded when Open was called
	replayed sequences // events up to here were in the journal then

	mu            sync.Mutex // one fold at a time; also guards what follows
	reg           registration
	unsaved       bool // own is not on disk as it is
	merged        bool // without Redis, nothing waits
	redisKnown    bool // what Redis has is known
	replayedEarly bool // events that were in the journal before were folded before that was known
	cursors       map[string]uint64
	children      childStore

	newTagChanges []tagChange // of this fold
	tagChanges    []tagChange // waiting to be told to other registries

	publishing sync.Mutex // one round at a time; also guards publisher
	publisher  publisher
	asked      chan struct{} // closed when Redis was asked once, whatever it said
	askedOnce  sync.Once
	wake       chan struct{} // has room for one: a reader saw that Redis lost something

	status status
}

// Open takes the numbers up where they were left. The database belongs to the
// caller, who closes it after the last call.
func Open(db *store.Store, cfg Config) (*Counter, error) {
	if cfg.Interval == 0 {
		cfg.Interval = 2 * time.Second
	}
	if cfg.CompareWithin == 0 {
		cfg.CompareWithin = time.Hour
	}
	if cfg.AskTimeout == 0 {
		cfg.AskTimeout = 3 * time.Second
	}
	if cfg.WatchFor == 0 {
		cfg.WatchFor = 45 * time.Second
	}
	if cfg.MaxChildren == 0 {
		cfg.MaxChildren = 1 << 20
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c := &Counter{
		db: db, cfg: cfg, log: log.With("component", "counter"), keys: newKeyspace(cfg.Name),
		cursors: map[string]uint64{}, asked: make(chan struct{}), wake: make(chan struct{}, 1),
	}
	for _, load := range []func() error{c.migrate, c.loadCursors, c.loadChildren, c.loadRegistration} {
		if err := load(); err != nil {
			return nil, fmt.Errorf("open counters: %w", err)
		}
	}
	return c, nil
}

func (c *Counter) journal() string {
	if c.cfg.Journal == nil {
		return ""
	}
	return c.cfg.Journal()
}

func (c *Counter) loadCursors() error {
	return scan(c.db, []byte(cursorPrefix), func(key, val []byte) error {
		if len(val) != 8 {
			return fmt.Errorf("damaged cursor %q", key)
		}
		c.cursors[strings.TrimPrefix(string(key), cursorPrefix)] = binary.BigEndian.Uint64(val)
		return nil
	})
}

// sequences are the last events in the numbers, by stream. The caller has c.mu.
func (c *Counter) folded() sequences {
	p := sequences{}
	for name, seq := range c.cursors {
		stream := name[len(name)-1]
		p[stream] = max(p[stream], seq)
	}
	return p
}

// Latest gives the last event of a stream that is in the numbers, under
// whatever id its journal had then; 0 if none is. Read on from here: a journal
// that takes a new id never uses a number again.
func (c *Counter) Latest(stream uint8) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.folded()[stream]
}

// Cursor gives the last event of a journal's stream that is in the numbers
// under this journal's id; 0 if none is.
func (c *Counter) Cursor(journal string, stream uint8) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cursors[cursorName(journal, stream)]
}

func cursorName(journal string, stream uint8) string {
	return strings.TrimPrefix(string(cursorKey(journal, stream)), cursorPrefix)
}

// scan visits the keys that begin with prefix, in order. What visit gets is
// valid during the call only.
func scan(r pebble.Reader, prefix []byte, visit func(key, val []byte) error) error {
	iter, err := r.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return err
	}
	for iter.First(); iter.Valid(); iter.Next() {
		if err := visit(iter.Key(), iter.Value()); err != nil {
			iter.Close()
			return err
		}
	}
	return errors.Join(iter.Error(), iter.Close())
}
