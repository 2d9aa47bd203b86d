package counter

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// Rows that wait end in how a fact came and in the run that counted it.
const (
	liveRun     = "f" // it happened while the process ran
	replayedRun = "r" // it was in the journal before
)

// item is a row on its way.
type item struct {
	id    rowID
	base  row // as Redis has it
	parts []part
	sum   row // of all these
	key   string
}

// part is what waits under a run.
type part struct {
	run string
	row row
}

func (it *item) add(run string, add row, now time.Time) {
	it.parts = append(it.parts, part{run, add})
	it.sum = it.sum.with(add, now)
}

// load reads a row and what waits for it. The caller has c.mu.
func (c *Counter) load(from pebble.Reader, id rowID, w *writer) (*item, error) {
	base, _, err := readRow(from, baseKey(id, w.epoch))
	if err != nil {
		return nil, err
	}
	it := &item{id: id, base: base, sum: base}
	if !w.current {
		return it, nil
	}
	prefix := []byte(pendingPrefix + id.key())
	return it, scan(from, prefix, func(key, val []byte) error {
		add, err := decodeRow(val)
		if err != nil {
			return fmt.Errorf("%w at %q", err, key)
		}
		it.add(string(key[len(prefix):]), add, c.cfg.Now())
		return nil
	})
}

// waiting lists the runs under which something waits.
func (c *Counter) pendingRuns() ([]string, error) {
	found := map[string]bool{}
	err := scan(c.db, []byte(pendingPrefix), func(key, _ []byte) error {
		_, run, err := parseRow(string(key[len(pendingPrefix):]))
		if run != "" {
			found[run[1:]] = true
		}
		return err
	})
	return slices.Sorted(maps.Keys(found)), err
}

// mergeRuns moves what waits under some runs to the numbers of an epoch.
func (c *Counter) mergeRuns(to epoch, runs func(run string) bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.db.NewIndexedBatch()
	now := c.cfg.Now()
	n := 0
	flush := func() error {
		defer func() { b, n = c.db.NewIndexedBatch(), 0 }()
		return c.db.Commit(b, pebble.NoSync)
	}
	err := scan(c.db, []byte(pendingPrefix), func(key, val []byte) error {
		id, run, err := parseRow(string(key[len(pendingPrefix):]))
		if err != nil {
			return err
		}
		if !runs(run) {
			return nil
		}
		add, err := decodeRow(val)
		if err != nil {
			return fmt.Errorf("%w at %q", err, key)
		}
		base, _, err := readRow(b, baseKey(id, to))
		if err != nil {
			return err
		}
		if base = base.with(add, now); base.counted() {
			err = b.Set(baseKey(id, to), base.encode(), nil)
		}
		if err = errors.Join(err, b.Delete(key, nil)); err != nil {
			return err
		}
		if n++; n < batchRows {
			return nil
		}
		return flush()
	})
	return errors.Join(err, flush())
}

// batchRows bounds how long others wait for one of our batches.
const batchRows = 1000

// mergeAllPending makes what waits for Redis numbers like the others when there is
// no Redis any more.
func (c *Counter) mergeAllPending() error {
	c.mu.Lock()
	done := c.merged
	c.mu.Unlock()
	if done {
		return nil
	}
	if err := c.mergeRuns(c.reg.epoch(), func(string) bool { return true }); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.merged = true
	return nil
}

// settle makes what was sent the numbers that Redis has. What was counted since
// goes on waiting. The caller has c.mu.
func (c *Counter) applySent(b *pebble.Batch, items []*item, damaged map[string]bool) error {
	e := c.reg.epoch()
	for _, it := range items {
		if damaged[it.key] {
			if len(it.parts) == 0 {
				if err := c.enqueue(b, it.id); err != nil {
					return err
				}
			}
			continue
		}
		base, _, err := readRow(b, baseKey(it.id, e))
		if err != nil {
			return err
		}
		if base != it.base {
			continue // it was pruned meanwhile, and waits for that
		}
		if err := applyBase(b, it, e); err != nil {
			return err
		}
		for _, p := range it.parts {
			key := pendingKey(it.id, p.run)
			now, there, err := readRow(b, key)
			if err != nil {
				return err
			}
			if !there {
				continue
			}
			if rest := now.without(p.row); rest.counted() || rest.tagState != 0 {
				err = b.Set(key, rest.encode(), nil)
			} else {
				err = b.Delete(key, nil)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func applyBase(b *pebble.Batch, it *item, e epoch) error {
	key := baseKey(it.id, e)
	if it.sum.counted() {
		if it.sum == it.base {
			return nil
		}
		return b.Set(key, it.sum.encode(), nil)
	}
	if err := b.Delete(key, nil); err != nil {
		return err
	}
	if it.id.kind != perTag || it.base.position == 0 {
		return nil
	}
	return b.Set(freeKey(it.id.repository, e, it.base.position), nil, nil)
}

// remember has a row sent in the next round. The caller has c.mu.
func (c *Counter) enqueue(b *pebble.Batch, id rowID) error {
	key := pendingKey(id, liveRun+c.run)
	there, err := exists(b, key)
	if err != nil || there {
		return err
	}
	return b.Set(key, row{}.encode(), nil)
}
