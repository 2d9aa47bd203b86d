// Package counter counts pulls and pushes: per repository, tag and day, by
// class.
//
// There are two sets of counts. The local counts are authoritative: events of
// a journal are folded into a Pebble store in the same synced batch as the
// cursor, so an event counts exactly once whatever crashes. Redis, if
// configured, has the counts of every registry, each under a registry id of its
// own, and readers add them up. They are published as absolute values. Writing
// them again changes nothing, so a Redis that was flushed, restored from an old
// dump, or failed over to a lagging replica is repaired by publishing again; the
// next round detects the loss, since every script call changes the registry's
// record. Only one process writes under a registry id; claim.go explains how that
// is enforced.
//
// Reading the journal and access control are the caller's. Package classify decides the
// class of a request before its event is recorded.
package counter

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/classify"
	"github.com/tidings-dev/tidings/notifier/rediscounts"
)

// Config configures a Counter. With the zero value, counts are local only.
type Config struct {
	Redis         redis.UniversalClient // nil: nothing is published
	Name          string                // of the installation: registries with the same name are summed; empty: "default"
	Interval      time.Duration         // between two rounds of publishing; 0: 2 s
	CompareWithin time.Duration         // time in which all of Redis is compared once, in small steps; 0: 1 h

	// Instance is the same for all processes that lock the same folder, of which
	// only one runs at a time, and different in a copy of that folder.
	Instance  string
	Host      string                    // shown to the operator
	Journal   func() string             // id of the journal that is folded; nil: none
	LastEvent func(stream uint8) uint64 // sequence number of the journal's last event when Open is called; nil: no event is folded again
	// HasTag reports whether the registry's storage has a tag. It is called before
	// the counts of a deleted tag are dropped; nil: they are dropped without asking.
	HasTag     func(repository, tag string) (bool, error)
	AskTimeout time.Duration // how long the first Fold waits for Redis; 0: 3 s
	WatchFor   time.Duration // how long another folder's record must stay unchanged before its registry id is claimed; 0: 45 s

	MaxChildren int                              // children of indexes kept on disk; 0: 1<<20
	Learn       func(all ...classify.IndexEntry) // receives what a Fold, or another registry, found out about indexes; nil: not called

	Now     func() time.Time // nil: time.Now
	Logger  *slog.Logger     // nil: silent
	Metrics *Metrics         // nil: silent
}

// Counter counts facts. It is safe for concurrent use.
type Counter struct {
	db    *store.Store
	cfg   Config
	log   *slog.Logger
	redis *rediscounts.DB // nil without Redis
	run   string          // id of this process, random; empty without Redis

	atOpen   rediscounts.Sequences // the last events that were folded when Open was called
	replayed rediscounts.Sequences // the last events that were in the journal then; those after atOpen are replayed

	mu            sync.Mutex // one fold at a time; also guards what follows
	reg           registration
	unsaved       bool // reg differs from what is on disk
	merged        bool // without Redis: there are no pending rows any more
	redisKnown    bool // it is known which replayed events Redis has
	replayedEarly bool // some replayed events were folded before that was known
	cursors       map[string]uint64
	entries       *classify.Store

	newTagChanges []rediscounts.TagChange // of this fold
	tagChanges    []rediscounts.TagChange // not sent to the other registries yet
	unsentEntries []classify.IndexEntry

	publishing sync.Mutex // one round at a time; also guards publisher
	publisher  publisher
	asked      chan struct{} // closed after the first attempt to ask Redis
	askedOnce  sync.Once
	wake       chan struct{} // capacity 1: a reader found that Redis lost something

	status status
}

// Open opens the counters in db. The database belongs to the caller, who closes it
// after the last call.
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
		db: db, cfg: cfg, log: log.With("component", "counter"),
		cursors: map[string]uint64{}, asked: make(chan struct{}), wake: make(chan struct{}, 1),
	}
	if cfg.Redis != nil {
		c.redis = rediscounts.New(cfg.Redis, cfg.Name)
	}
	for _, load := range []func() error{c.migrate, c.loadCursors, c.loadEntries, c.loadRegistration} {
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

// folded returns the last event in the counts, by stream. The caller holds c.mu.
func (c *Counter) folded() rediscounts.Sequences {
	p := rediscounts.Sequences{}
	for name, seq := range c.cursors {
		stream := name[len(name)-1]
		p[stream] = max(p[stream], seq)
	}
	return p
}

// Latest returns the sequence number of the last event of a stream that is in the
// counts, under any id that the journal has had; 0 if there is none. Reading
// continues from here: a journal that takes a new id never reuses a number.
func (c *Counter) Latest(stream uint8) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.folded()[stream]
}

func cursorName(journal string, stream uint8) string {
	return strings.TrimPrefix(string(cursorKey(journal, stream)), cursorPrefix)
}
