package counter

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/redis/go-redis/v9"

	"github.com/tidings-dev/tidings/atproto/store"
)

// KeepDays is how many days have numbers of their own, today included.
const KeepDays = 400

// Config says how a Counter publishes. The zero value counts on this disk only.
type Config struct {
	Redis redis.UniversalClient // nil: nothing is published
	Every time.Duration         // between two rounds; 0: 2 s
	Whole time.Duration         // within which everything is sent again, a bucket at a time; 0: 1 h

	MaxChildren int                    // children of indexes kept on disk; 0: 1<<20
	Learn       func(keys ...ChildKey) // told the children that other replicas found; nil: not asked for

	Now     func() time.Time // nil: time.Now
	Logger  *slog.Logger     // nil: silent
	Metrics *Metrics         // nil: silent
}

// Counter folds facts into numbers. Safe for concurrent use.
type Counter struct {
	db  *store.Store
	cfg Config
	log *slog.Logger
	id  string

	mu       sync.Mutex // one fold at a time; also guards what follows
	cursors  map[string]uint64
	marked   uint64 // stamp of the last dirty mark
	children childStore

	publishing sync.Mutex // one round at a time; also guards sent
	sent       sent

	status status
}

// Open takes the numbers up where they were left. The database belongs to the
// caller, who closes it after the last call.
func Open(db *store.Store, cfg Config) (*Counter, error) {
	if cfg.Every == 0 {
		cfg.Every = 2 * time.Second
	}
	if cfg.Whole == 0 {
		cfg.Whole = time.Hour
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
	c := &Counter{db: db, cfg: cfg, log: log.With("component", "counter"), cursors: map[string]uint64{}}
	for _, load := range []func() error{c.loadID, c.loadCursors, c.loadChildren, c.loadGenerations} {
		if err := load(); err != nil {
			return nil, fmt.Errorf("open counters: %w", err)
		}
	}
	return c, nil
}

func (c *Counter) loadID() error {
	val, closer, err := c.db.Get([]byte(idKey))
	if err == nil {
		c.id = string(val)
		return closer.Close()
	}
	if !errors.Is(err, pebble.ErrNotFound) {
		return err
	}
	var b [8]byte
	rand.Read(b[:])
	c.id = hex.EncodeToString(b[:])
	return c.db.Set([]byte(idKey), []byte(c.id), pebble.Sync)
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

// Latest gives the last event of a stream that is in the numbers, under
// whatever id its journal had then; 0 if none is. Read on from here: a journal
// that takes a new id never uses a number again.
func (c *Counter) Latest(stream uint8) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	var latest uint64
	for name, seq := range c.cursors {
		if name[len(name)-1] == stream {
			latest = max(latest, seq)
		}
	}
	return latest
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
