package counter

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/redis/go-redis/v9"
)

// DamagedError says that a key in Redis is not what it should be. The others
// are published all the same.
type DamagedError struct {
	Key    string
	Reason string
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("redis key %q %s: somebody else wrote it; delete it, and the numbers are sent again", e.Key, e.Reason)
}

// errLost means that a bucket in Redis is not as our last call left it.
var errLost = errors.New("redis has lost numbers")

// sent is what Redis has if it has lost nothing.
type sent struct {
	generation [buckets]string // "": not known, so everything is sent
	refresh    int             // the bucket that is sent whole at refreshAt
	refreshAt  time.Time
	childrenAt string // entry of the stream of children that was read last

	saidLost, saidAhead time.Time // when it was logged
}

func (c *Counter) loadGenerations() error {
	c.sent = sent{refreshAt: c.cfg.Now().Add(c.cfg.Whole / buckets), childrenAt: "0"}
	if c.cfg.Redis == nil {
		// Without Redis no row is marked, so what it had is not enough later.
		return c.db.DeleteRange([]byte(genPrefix), after([]byte(genPrefix)), pebble.NoSync)
	}
	return scan(c.db, []byte(genPrefix), func(key, val []byte) error {
		for i := range buckets {
			if len(key) == len(genPrefix)+1 && key[len(genPrefix)] == hexDigits[i] {
				c.sent.generation[i] = string(val)
			}
		}
		return nil
	})
}

// Publish sends what changed to Redis, and everything that Redis turns out to
// have lost. It gives the number of rows that were sent; without Redis it does
// nothing. A *DamagedError in the result means that all other rows were sent.
func (c *Counter) Publish(ctx context.Context) (published int, err error) {
	if c.cfg.Redis == nil {
		return 0, nil
	}
	c.publishing.Lock()
	defer c.publishing.Unlock()
	r := &round{c: c, ctx: ctx}
	if err = r.run(); err != nil {
		err = fmt.Errorf("publish counters: %w", err)
	}
	c.cfg.Metrics.published(r.rows, r.lost, err != nil, c.cfg.Now())
	c.status.round(c.cfg.Now(), err)
	if r.lost > 0 && c.mayLog(&c.sent.saidLost) {
		c.log.Warn("Redis had lost numbers, which were sent again", "buckets", r.lost, "of", buckets, "rows", r.rows)
	}
	if r.ahead > 0 && c.mayLog(&c.sent.saidAhead) {
		c.log.Warn("Redis holds higher numbers of this disk than the disk itself, which was set back or is a copy; the higher ones stay until the disk has caught up", "fields", r.ahead)
	}
	return r.rows, err
}

// mayLog keeps what can happen in every round from filling the log.
func (c *Counter) mayLog(said *time.Time) bool {
	now := c.cfg.Now()
	if now.Sub(*said) < logEvery {
		return false
	}
	*said = now
	return true
}

// round is one Publish.
type round struct {
	c           *Counter
	ctx         context.Context
	rows        int
	lost, ahead int
	damaged     map[string]error // by repository, so that one is reported once
}

func (r *round) run() error {
	there, err := r.generations()
	if err != nil {
		return err
	}
	r.refresh()
	r.damaged = map[string]error{}
	for i := range buckets {
		err := r.bucket(i, there[i])
		if damaged := (*DamagedError)(nil); errors.As(err, &damaged) {
			r.damaged[damaged.Key] = damaged
			continue
		}
		if err != nil {
			return err
		}
	}
	if err := r.shareChildren(); err != nil {
		return err
	}
	var all []error
	for _, err := range r.damaged {
		all = append(all, err)
	}
	return errors.Join(all...)
}

func (r *round) generations() ([buckets]string, error) {
	var there [buckets]string
	cmds, err := r.c.cfg.Redis.Pipelined(r.ctx, func(p redis.Pipeliner) error {
		for i := range buckets {
			p.HGet(r.ctx, generationKey(hexDigits[i]), r.c.id)
		}
		return nil
	})
	for i, cmd := range cmds {
		val, err := cmd.(*redis.StringCmd).Result()
		if err != nil && !errors.Is(err, redis.Nil) && !redis.HasErrorPrefix(err, "WRONGTYPE") {
			return there, err
		}
		there[i] = val
	}
	if len(cmds) != buckets {
		return there, err
	}
	return there, nil
}

// refresh lets one bucket be sent whole now and then: a single key that was
// evicted or deleted does not show in a generation.
func (r *round) refresh() {
	s, now := &r.c.sent, r.c.cfg.Now()
	if now.Before(s.refreshAt) {
		return
	}
	s.generation[s.refresh] = ""
	s.refresh = (s.refresh + 1) % buckets
	s.refreshAt = now.Add(r.c.cfg.Whole / buckets)
}

func (r *round) bucket(i int, there string) error {
	known := &r.c.sent.generation[i]
	if *known != "" {
		if *known == there {
			err := r.changed(i)
			if !errors.Is(err, errLost) {
				return err
			}
		}
		r.lost++
		*known = ""
	}
	if err := r.whole(i); err != nil || *known == "" {
		return err
	}
	return r.changed(i)
}

// whole sends all rows of a bucket. The generation is kept on disk only when
// all are there, so dying in between means beginning again.
func (r *round) whole(i int) error {
	call := r.call(i, "*", true)
	prefix := []byte(rowPrefix + hexDigits[i:i+1])
	err := scan(r.c.db, prefix, func(key, val []byte) error {
		return call.row(string(key[len(rowPrefix):]), val)
	})
	if err == nil {
		err = call.flush()
	}
	if err != nil || call.expected == "*" {
		r.c.sent.generation[i] = ""
		return err
	}
	r.c.sent.generation[i] = call.expected
	return r.c.db.Set([]byte(genPrefix+hexDigits[i:i+1]), []byte(call.expected), pebble.NoSync)
}

// changed sends the rows that are marked, as they and their marks are at one
// moment.
func (r *round) changed(i int) error {
	snap := r.c.db.NewSnapshot()
	defer snap.Close()
	call := r.call(i, r.c.sent.generation[i], false)
	prefix := []byte(dirtyPrefix + hexDigits[i:i+1])
	err := scan(snap, prefix, func(key, stamp []byte) error {
		suffix := string(key[len(dirtyPrefix):])
		val, closer, err := snap.Get([]byte(rowPrefix + suffix))
		if errors.Is(err, pebble.ErrNotFound) {
			err = call.row(suffix, nil)
		} else if err == nil {
			err = call.row(suffix, val)
			closer.Close()
		}
		call.marks = append(call.marks, mark{suffix, binary.BigEndian.Uint64(stamp)})
		return err
	})
	if err == nil {
		err = call.flush()
	}
	if err != nil {
		// How much of it was done is not known.
		r.c.sent.generation[i] = ""
		return err
	}
	r.c.sent.generation[i] = call.expected
	return nil
}

// repository sends all rows of one repository.
func (r *round) repository(i int, name, expected string) (next string, err error) {
	call := r.call(i, expected, true)
	err = scan(r.c.db, rowStart(name, 0), func(key, val []byte) error {
		return call.row(string(key[len(rowPrefix):]), val)
	})
	if err == nil {
		err = call.flush()
	}
	return call.expected, err
}

// settle takes away the marks of what was sent, unless the row has changed
// since, and keeps the generation that says so.
func (c *Counter) settle(bucket int, generation string, marks []mark, damaged map[string]error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.db.NewBatch()
	for _, m := range marks {
		if id, err := parseRow(m.suffix); err == nil && damaged[repositoryKey(id.repository)] != nil {
			continue
		}
		key := []byte(dirtyPrefix + m.suffix)
		val, closer, err := c.db.Get(key)
		if errors.Is(err, pebble.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		same := binary.BigEndian.Uint64(val) == m.stamp
		closer.Close()
		if !same {
			continue
		}
		if err := b.Delete(key, nil); err != nil {
			return err
		}
	}
	if err := b.Set([]byte(genPrefix+hexDigits[bucket:bucket+1]), []byte(generation), nil); err != nil {
		return err
	}
	return c.db.Commit(b, pebble.NoSync)
}

// remark makes a repository that Redis can't take be tried in every round.
func (c *Counter) remark(suffix string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.db.NewBatch()
	if err := c.mark(b, suffix); err != nil {
		return err
	}
	return c.db.Commit(b, pebble.NoSync)
}

func newGeneration() string { return strconv.FormatUint(rand.Uint64(), 36) }
