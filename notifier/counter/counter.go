// Package counter keeps the counts of this data folder and publishes them to Redis.
//
// The local counts are authoritative. The facts of events are folded into a Pebble store
// in the same synced batch as the cursor of the journal, so every event counts exactly
// once, also after a crash.
//
// With Redis, the counts of each registry are published under a registry id (package
// rediscounts), as absolute values. Publishing them again changes nothing. So after Redis
// was flushed, restored from an old dump, or failed over to a lagging replica, the counts
// are simply published again; every write changes the registry's record, which shows the
// loss in the next round. Only one process writes under a registry id (claim.go).
//
// The caller reads the journal and controls access. Package classify decides the class of
// a request before its event is recorded.
package counter

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/classify"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/lastuse"
	"github.com/tidings-dev/tidings/notifier/rediscounts"
)

// Config configures a Counter. With the zero value, counts are local only.
type Config struct {
	Redis         *rediscounts.DB // nil: nothing is published
	Interval      time.Duration   // between two rounds of publishing; 0: 2 s
	CompareWithin time.Duration   // time in which every row is compared with Redis once; 0: 1 h

	// Instance identifies the data folder: it is the same for all processes that lock
	// the same folder, and different for a copy of it.
	Instance  string
	Host      string                    // shown to the operator
	Journal   func() string             // id of the journal that is folded; nil: none
	LastEvent func(stream uint8) uint64 // sequence number of the last event of a stream; called by Open; nil: no event is folded again
	// HasTag reports whether the registry's storage has a tag. The counts of a deleted
	// tag are dropped only if it has not; nil: without asking.
	HasTag     func(repository, tag string) (bool, error)
	AskTimeout time.Duration // how long the first Fold waits for Redis; 0: 3 s
	WatchFor   time.Duration // how long the record of another folder must stay unchanged before its registry id is claimed; 0: 45 s

	MaxChildren int                              // index entries kept on disk; 0: 1<<20
	Learn       func(all ...classify.IndexEntry) // receives new index entries, of a Fold or of another registry; nil: not called

	Now     func() time.Time // nil: time.Now
	Logger  *slog.Logger     // nil: silent
	Metrics *Metrics         // nil: silent
}

// Counter counts facts. It is safe for concurrent use.
type Counter struct {
	db    *store.Store
	cfg   Config
	log   *slog.Logger
	redis *rediscounts.DB // Config.Redis
	run   string          // random id of this process; empty without Redis

	atOpen   rediscounts.Sequences // last events that were folded when Open was called
	replayed rediscounts.Sequences // last events of the journal then; those after atOpen are replayed

	mu            sync.Mutex // held during a fold; guards the fields below
	reg           registration
	unsaved       bool // reg was changed and is not on disk yet
	merged        bool // without Redis: all pending rows were merged
	redisKnown    bool // it is known which replayed events Redis has
	replayedEarly bool // replayed events were folded before that
	cursors       map[string]uint64
	entries       *classify.Store
	lastUse       *lastuse.Table
	sharedUses    sharedUses
	unsentUses    map[lastuse.ID]lastuse.Change // not in Redis yet
	unsentDropped bool                          // unsentUses was full: all rows are sent
	usesSince     time.Time                     // the uses in lastUse are complete from here on
	trusted       bool                          // the clock was, when prune last checked it

	newTagChanges []rediscounts.TagChange // of this fold
	newUses       *lastuse.Changes        // likewise
	newUnlisted   []counts.Fact           // pulls of unlisted accounts that this fold counts
	tagChanges    []rediscounts.TagChange // not sent to the other registries yet
	unsentEntries []classify.IndexEntry   // likewise

	publishing sync.Mutex // held during a round; guards publisher
	publisher  publisher
	asked      chan struct{} // closed after the first answer of Redis, or the first failure
	askedOnce  sync.Once
	wake       chan struct{} // capacity 1: a reader has detected a loss in Redis

	status status
}

// Open opens the counts in db. The caller closes db after the last call.
func Open(db *store.Store, cfg Config) (*Counter, error) {
	cfg.Interval = cmp.Or(cfg.Interval, 2*time.Second)
	cfg.CompareWithin = cmp.Or(cfg.CompareWithin, time.Hour)
	cfg.AskTimeout = cmp.Or(cfg.AskTimeout, 3*time.Second)
	cfg.WatchFor = cmp.Or(cfg.WatchFor, 45*time.Second)
	cfg.MaxChildren = cmp.Or(cfg.MaxChildren, 1<<20)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c := &Counter{
		db: db, cfg: cfg, redis: cfg.Redis, log: log.With("component", "counter"),
		lastUse: lastuse.New(lastUsePrefix),
		cursors: map[string]uint64{}, unsentUses: map[lastuse.ID]lastuse.Change{}, asked: make(chan struct{}), wake: make(chan struct{}, 1),
	}
	for _, load := range []func() error{c.migrate, c.loadCursors, c.loadEntries, c.loadRegistration, c.loadUseTracking, c.loadSharedUses} {
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
	return store.Scan(c.db, []byte(cursorPrefix), func(key, val []byte) error {
		if len(val) != 8 {
			return fmt.Errorf("damaged cursor %q", key)
		}
		c.cursors[strings.TrimPrefix(string(key), cursorPrefix)] = binary.BigEndian.Uint64(val)
		return nil
	})
}

// ReadLatest returns what Latest returns, from a store that is open for reading only.
func ReadLatest(from store.Reader, stream uint8) (latest uint64, err error) {
	err = store.Scan(from, []byte(cursorPrefix), func(key, val []byte) error {
		if len(val) != 8 {
			return fmt.Errorf("damaged cursor %q", key)
		}
		if key[len(key)-1] == stream {
			latest = max(latest, binary.BigEndian.Uint64(val))
		}
		return nil
	})
	return latest, err
}

func (c *Counter) loadEntries() (err error) {
	c.entries, err = classify.OpenStore(c.db, indexPrefix, c.cfg.MaxChildren)
	return err
}

// Children returns the stored index entries, oldest first, for Classifier.Learn.
func (c *Counter) Children() ([]classify.IndexEntry, error) {
	all, err := c.entries.Entries(c.db)
	if err != nil {
		return nil, fmt.Errorf("load children: %w", err)
	}
	return all, nil
}

// folded returns the last folded events. The caller must hold c.mu.
func (c *Counter) folded() rediscounts.Sequences {
	p := rediscounts.Sequences{}
	for name, seq := range c.cursors {
		stream := name[len(name)-1]
		p[stream] = max(p[stream], seq)
	}
	return p
}

// Latest returns the sequence number of the last folded event of a stream, under any id
// that the journal has had; 0 if there is none. The caller reads the journal from there: a
// journal with a new id does not reuse sequence numbers.
func (c *Counter) Latest(stream uint8) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.folded()[stream]
}

func cursorName(journal string, stream uint8) string {
	return strings.TrimPrefix(string(cursorKey(journal, stream)), cursorPrefix)
}
