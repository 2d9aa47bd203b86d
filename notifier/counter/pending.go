package counter

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/rediscounts"
)

// Pending rows are the counts that Redis does not have yet. Their keys end in the run of the
// process that counted them, so the rows of one process can be sent or merged without the
// others.
//
// A round sends the sum of a base row and its pending rows. When Redis has acknowledged it,
// one synced batch (applySent) makes the sum the base row, subtracts what was sent from the
// pending rows, and stores the acknowledged record. A crash before that batch loses nothing:
// the rows are still pending, and since the record in Redis is not the stored one,
// everything is compared again.
//
// If a run is entered under another registry id in Redis (claim.go), its pending rows are
// merged into the base rows of that id's epoch instead (mergeRuns). Each batch deletes the
// rows that it merges, so the next claim continues an interrupted merge.

// The end of a pending key is one of these and a run.
const (
	liveRun     = "f" // the event was recorded while the process ran
	replayedRun = "r" // the event was in the journal when the process started
)

// item is a row that is sent or compared.
type item struct {
	id    counts.ID
	base  counts.Row // what Redis has
	parts []part
	sum   counts.Row // of base and parts
	field rediscounts.Field
}

// part is the pending row of a run.
type part struct {
	run string
	row counts.Row
}

func (it *item) add(run string, add counts.Row, now time.Time) {
	it.parts = append(it.parts, part{run, add})
	it.sum = it.sum.Add(add, now)
}

// load reads a base row with its pending rows. The caller must hold c.mu.
func (c *Counter) load(from store.Reader, id counts.ID, w *writer) (*item, error) {
	base, _, err := readRow(from, baseKey(id, w.epoch))
	if err != nil {
		return nil, err
	}
	it := &item{id: id, base: base, sum: base}
	if !w.current {
		return it, nil
	}
	return it, scanRows(from, pendingPrefix, pendingKey(id, ""), func(_ counts.ID, run string, add counts.Row) error {
		it.add(run, add, c.cfg.Now())
		return nil
	})
}

// pendingRuns lists the runs that have pending rows.
func (c *Counter) pendingRuns() ([]string, error) {
	found := map[string]bool{}
	err := store.Scan(c.db, []byte(pendingPrefix), func(key, _ []byte) error {
		_, run, err := parseRow(string(key[len(pendingPrefix):]))
		if run != "" {
			found[run[1:]] = true
		}
		return err
	})
	return slices.Sorted(maps.Keys(found)), err
}

// mergeRuns merges the pending rows of some runs into the base rows of an epoch.
func (c *Counter) mergeRuns(to epoch, runs func(run string) bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.db.NewIndexedBatch()
	now := c.cfg.Now()
	n := 0
	flush := func() error {
		defer func() { b, n = c.db.NewIndexedBatch(), 0 }()
		return c.db.Commit(b, store.Sync)
	}
	err := scanRows(c.db, pendingPrefix, []byte(pendingPrefix), func(id counts.ID, run string, add counts.Row) error {
		if !runs(run) {
			return nil
		}
		base, _, err := readRow(b, baseKey(id, to))
		if err != nil {
			return err
		}
		if base = base.Add(add, now); base.Counted() {
			err = b.Set(baseKey(id, to), base.Encode())
		}
		if err = errors.Join(err, b.Delete(pendingKey(id, run))); err != nil {
			return err
		}
		if n++; n < batchRows {
			return nil
		}
		return flush()
	})
	return errors.Join(err, flush())
}

// batchRows bounds the size of a batch, since other commits wait for it.
const batchRows = 1000

// mergeAllPending merges all pending rows into the base rows, after Redis was removed from
// the options.
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

// applySent makes the rows that were sent the base rows. What was counted since then stays
// pending. The caller must hold c.mu.
func (c *Counter) applySent(b store.Batch, items []*item, damaged map[string]bool) error {
	e := c.reg.epoch()
	for _, it := range items {
		if damaged[it.field.Key] {
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
			continue // pruned since, and sent again because of that
		}
		if err := applyBase(b, it, e); err != nil {
			return err
		}
		for _, p := range it.parts {
			key := pendingKey(it.id, p.run)
			now, ok, err := readRow(b, key)
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			if rest := now.Sub(p.row); rest.Counted() || rest.TagState != 0 {
				err = b.Set(key, rest.Encode())
			} else {
				err = b.Delete(key)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func applyBase(b store.Batch, it *item, e epoch) error {
	key := baseKey(it.id, e)
	if it.sum.Counted() {
		if it.sum == it.base {
			return nil
		}
		return b.Set(key, it.sum.Encode())
	}
	if err := b.Delete(key); err != nil {
		return err
	}
	if it.id.Kind != counts.PerTag || it.base.Position == 0 {
		return nil
	}
	return b.Set(freeKey(it.id.Repository, e, it.base.Position), nil)
}

// enqueue adds an empty pending row, so that the next round sends the row. The caller must
// hold c.mu.
func (c *Counter) enqueue(b store.Batch, id counts.ID) error {
	key := pendingKey(id, liveRun+c.run)
	ok, err := store.Has(b, key)
	if err != nil || ok {
		return err
	}
	return b.Set(key, counts.Row{}.Encode())
}
