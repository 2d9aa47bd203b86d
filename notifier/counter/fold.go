package counter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// Fold adds facts to the numbers and moves the cursor to upTo, in one batch
// that is on disk when it returns. The facts must be those of all events after
// Cursor up to and including upTo. If the cursor is at upTo or behind it
// already, nothing happens, also is not called, and that is no error: so a
// Fold whose error left open whether it was done may be repeated.
//
// also, if not nil, adds the caller's own keys to the batch.
//
// A push of a digest that this disk has seen pushed to the same repository under
// another tag, which is there and has it still, counts as a retag too.
//
// The first Fold of a process asks Redis what it has, for Config.AskTimeout at most.
func (c *Counter) Fold(journal string, stream uint8, upTo uint64, facts []Fact, also func(*pebble.Batch) error) error {
	if journal == "" || strings.ContainsAny(journal, "\x00/") {
		return fmt.Errorf("fold: %q can't be the id of a journal", journal)
	}
	if c.cfg.Redis == nil {
		if err := c.mergeAllPending(); err != nil {
			return fmt.Errorf("fold: %w", err)
		}
	}
	c.askRedisOnce()
	c.mu.Lock()
	defer c.mu.Unlock()
	if upTo <= c.cursors[cursorName(journal, stream)] {
		return nil
	}
	if err := c.commit(journal, stream, upTo, facts, also); err != nil {
		// It may have been applied all the same; the cursor, which went with
		// the numbers, knows.
		return fmt.Errorf("fold: %w", errors.Join(err, c.loadCursors(), c.loadChildren()))
	}
	c.cursors[cursorName(journal, stream)] = upTo
	c.children.committed()
	if c.cfg.Learn != nil && len(c.children.added) > 0 {
		c.cfg.Learn(c.children.added...)
	}
	c.tagChanges = append(c.tagChanges, c.newTagChanges[:min(len(c.newTagChanges), maxTagChanges-len(c.tagChanges))]...)
	c.cfg.Metrics.folded(facts)
	return nil
}

func (c *Counter) commit(journal string, stream uint8, upTo uint64, facts []Fact, also func(*pebble.Batch) error) error {
	b := c.db.NewIndexedBatch()
	if err := c.fold(b, stream, facts); err != nil {
		return err
	}
	if err := b.Set(cursorKey(journal, stream), binary.BigEndian.AppendUint64(nil, upTo), nil); err != nil {
		return err
	}
	if also != nil {
		if err := also(b); err != nil {
			return err
		}
	}
	if c.unsaved {
		if err := c.putRegistration(b); err != nil {
			return err
		}
	}
	if err := c.db.Commit(b, pebble.Sync); err != nil {
		return err
	}
	c.unsaved = false
	return nil
}

func (c *Counter) fold(b *pebble.Batch, stream uint8, facts []Fact) error {
	now := c.cfg.Now()
	f := folding{
		c: c, b: b, now: now, today: dayOf(now),
		tomorrow: now.Add(24 * time.Hour), oldest: dayOf(now) + 1 - KeepDays,
		all: map[target]map[rowID]*row{},
	}
	c.children.begin()
	c.newTagChanges = nil
	for i := range facts {
		if to := c.target(stream, facts[i].Seq); f.rows == nil || to != f.to {
			f.to, f.rows = to, f.all[to]
		}
		if f.rows == nil {
			f.rows = map[rowID]*row{}
			f.all[f.to] = f.rows
		}
		if err := f.add(&facts[i]); err != nil {
			return err
		}
	}
	return f.write()
}

// target is how the keys of the rows begin and end that an event counts in.
// The caller has c.mu.
func (c *Counter) target(stream uint8, seq uint64) target {
	switch {
	case c.cfg.Redis == nil:
		return target{basePrefix, c.reg.epoch().end()}
	case seq != 0 && seq <= c.reg.Skip[stream]:
		return target{basePrefix, c.reg.SkipEpoch.end()}
	case seq != 0 && seq <= c.replayed[stream]:
		c.replayedEarly = c.replayedEarly || !c.redisKnown
		return target{pendingPrefix, replayedRun + c.run}
	}
	return target{pendingPrefix, liveRun + c.run}
}

type target struct{ prefix, end string }

func (t target) key(id rowID) []byte { return []byte(t.prefix + id.key() + t.end) }

// folding is one batch in the making.
type folding struct {
	c        *Counter
	b        *pebble.Batch
	now      time.Time
	today    int64
	tomorrow time.Time
	oldest   int64          // day that still has numbers of its own
	to       target         // of the fact at hand
	rows     map[rowID]*row // of that target
	all      map[target]map[rowID]*row
}

func (f *folding) add(fact *Fact) error {
	if err := f.c.children.fold(f.b, fact); err != nil {
		return err
	}
	if fact.Deleted {
		return f.deleteTag(fact)
	}
	if fact.Class == "" {
		return nil
	}
	class := fact.Class.index()
	if class < 0 || fact.Repository == "" {
		// It comes from our own journal, so a program that knew more wrote it.
		// Stopping here would stop all counting.
		f.c.log.Error("an event of a class that this version does not know is not counted", "class", fact.Class, "repository", fact.Repository)
		return nil
	}
	if err := f.count(fact, class); err != nil {
		return err
	}
	if fact.Class != Push || fact.Tag == "" || fact.Digest == "" {
		return nil
	}
	again, err := recordPush(f.b, fact, f.today)
	if err != nil || !again {
		return err
	}
	return f.count(fact, Retag.index())
}

func (f *folding) count(fact *Fact, class int) error {
	total, err := f.row(rowID{fact.Repository, totals, ""})
	if err != nil {
		return err
	}
	total.counts[class]++
	if !fact.Time.IsZero() {
		switch fact.Class {
		case Pull:
			total.lastPull = later(total.lastPull, fact.Time.UnixMilli(), f.now)
		case Push:
			total.lastPush = later(total.lastPush, fact.Time.UnixMilli(), f.now)
		}
	}
	if fact.Tag != "" {
		tag, err := f.row(rowID{fact.Repository, perTag, fact.Tag})
		if err != nil {
			return err
		}
		if fact.Class == Push {
			if err := f.notePush(fact, *tag); err != nil {
				return err
			}
			tag.tagState = present
		}
		tag.counts[class]++
	}
	day := dayOf(fact.Time)
	if fact.Time.After(f.tomorrow) {
		// The clock was ahead when it happened. When that was is not known.
		day = f.today
	}
	if fact.Time.IsZero() || day < f.oldest {
		return nil
	}
	today, err := f.row(rowID{fact.Repository, perDay, dayName(day)})
	if err != nil {
		return err
	}
	today.counts[class]++
	return nil
}

// gone notes that a tag was deleted. Its row is dropped when it stays so.
func (f *folding) deleteTag(fact *Fact) error {
	if fact.Repository == "" || fact.Tag == "" {
		return nil
	}
	tag, err := f.row(rowID{fact.Repository, perTag, fact.Tag})
	if err != nil {
		return err
	}
	tag.tagState = deletedOn(f.today)
	f.noteTagChange(fact, true)
	return deletePush(f.b, fact.Repository, fact.Tag, nil)
}

// pushed tells other registries of a tag that they may believe gone: one that is
// gone here, or that this disk never heard of.
func (f *folding) notePush(fact *Fact, waits row) error {
	if f.c.cfg.Redis == nil || waits.tagState == present {
		return nil
	}
	base, known, err := readRow(f.c.db, baseKey(rowID{fact.Repository, perTag, fact.Tag}, f.c.reg.epoch()))
	if err != nil {
		return err
	}
	if waits.tagState == 0 {
		waits.tagState = base.tagState
	}
	if waits.tagState >= deletedBase || !known && !waits.counted() {
		f.noteTagChange(fact, false)
	}
	return nil
}

func (f *folding) noteTagChange(fact *Fact, gone bool) {
	if f.c.cfg.Redis != nil {
		f.c.newTagChanges = append(f.c.newTagChanges, tagChange{fact.Repository, fact.Tag, gone})
	}
}

func (f *folding) row(id rowID) (*row, error) {
	if r, ok := f.rows[id]; ok {
		return r, nil
	}
	r, _, err := readRow(f.c.db, f.to.key(id))
	if err != nil {
		return nil, err
	}
	f.rows[id] = &r
	return &r, nil
}

func (f *folding) write() error {
	for to, rows := range f.all {
		for id, r := range rows {
			if to.prefix == basePrefix && !r.counted() {
				continue // a tag that nobody counted was deleted
			}
			if err := f.b.Set(to.key(id), r.encode(), nil); err != nil {
				return err
			}
		}
	}
	return nil
}

func readRow(r pebble.Reader, key []byte) (row, bool, error) {
	val, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return row{}, false, nil
	}
	if err != nil {
		return row{}, false, err
	}
	defer closer.Close()
	out, err := decodeRow(val)
	if err != nil {
		return row{}, false, fmt.Errorf("%w at %q", err, key)
	}
	return out, true, nil
}
