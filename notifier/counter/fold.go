package counter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
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
// A push of a digest that this disk has seen pushed to the same repository
// under another tag counts as a retag too.
func (c *Counter) Fold(journal string, stream uint8, upTo uint64, facts []Fact, also func(*pebble.Batch) error) error {
	if journal == "" || strings.ContainsAny(journal, "\x00/") {
		return fmt.Errorf("fold: %q can't be the id of a journal", journal)
	}
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
	c.cfg.Metrics.folded(facts)
	return nil
}

func (c *Counter) commit(journal string, stream uint8, upTo uint64, facts []Fact, also func(*pebble.Batch) error) error {
	b := c.db.NewIndexedBatch()
	if err := c.fold(b, journal, facts); err != nil {
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
	return c.db.Commit(b, pebble.Sync)
}

func (c *Counter) fold(b *pebble.Batch, journal string, facts []Fact) error {
	f := folding{c: c, b: b, journal: journal, oldest: dayOf(c.cfg.Now().AddDate(0, 0, 1-KeepDays)), rows: map[rowID]*row{}}
	c.children.begin()
	for _, fact := range facts {
		if err := f.add(fact); err != nil {
			return err
		}
	}
	return f.write()
}

// folding is one batch in the making.
type folding struct {
	c       *Counter
	b       *pebble.Batch
	journal string
	oldest  string // day
	rows    map[rowID]*row
}

func (f *folding) add(fact Fact) error {
	if err := f.c.children.store(f.b, fact.Repository, fact.Children); err != nil {
		return err
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
	again, err := f.pushedBefore(fact)
	if err != nil || !again {
		return err
	}
	return f.count(fact, Retag.index())
}

func (f *folding) count(fact Fact, class int) error {
	total, err := f.row(rowID{fact.Repository, totals, "", f.journal})
	if err != nil {
		return err
	}
	total.counts[class]++
	if !fact.Time.IsZero() {
		switch fact.Class {
		case Pull:
			total.lastPull = max(total.lastPull, fact.Time.UnixMilli())
		case Push:
			total.lastPush = max(total.lastPush, fact.Time.UnixMilli())
		}
	}
	if fact.Tag != "" {
		tag, err := f.row(rowID{fact.Repository, perTag, fact.Tag, f.journal})
		if err != nil {
			return err
		}
		tag.counts[class]++
	}
	day := dayOf(fact.Time)
	if fact.Time.IsZero() || day < f.oldest {
		return nil
	}
	today, err := f.row(rowID{fact.Repository, perDay, day, f.journal})
	if err != nil {
		return err
	}
	today.counts[class]++
	return nil
}

func (f *folding) row(id rowID) (*row, error) {
	if r, ok := f.rows[id]; ok {
		return r, nil
	}
	r, _, err := readRow(f.c.db, id.suffix())
	if err != nil {
		return nil, err
	}
	f.rows[id] = &r
	return &r, nil
}

func (f *folding) write() error {
	for id, r := range f.rows {
		suffix := id.suffix()
		if err := f.b.Set([]byte(rowPrefix+suffix), r.encode(), nil); err != nil {
			return err
		}
		if err := f.c.mark(f.b, suffix); err != nil {
			return err
		}
	}
	return nil
}

// mark notes that a row waits to be sent. The stamp tells a mark from a later
// one on the same row. The caller has c.mu.
func (c *Counter) mark(b *pebble.Batch, suffix string) error {
	if c.cfg.Redis == nil {
		return nil
	}
	c.marked++
	return b.Set([]byte(dirtyPrefix+suffix), binary.BigEndian.AppendUint64(nil, c.marked), nil)
}

// pushedBefore notes the push, and tells whether there was one of the same
// digest under another tag.
func (f *folding) pushedBefore(fact Fact) (bool, error) {
	prefix := pushedKey(fact.Repository, fact.Digest, "")
	own := pushedKey(fact.Repository, fact.Digest, fact.Tag)
	iter, err := f.b.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return false, err
	}
	other := iter.First() && (!slices.Equal(iter.Key(), own) || iter.Next())
	if err := errors.Join(iter.Error(), iter.Close()); err != nil {
		return false, err
	}
	return other, f.b.Set(own, []byte(dayOf(f.c.cfg.Now())), nil)
}

func readRow(r pebble.Reader, suffix string) (row, bool, error) {
	val, closer, err := r.Get([]byte(rowPrefix + suffix))
	if errors.Is(err, pebble.ErrNotFound) {
		return row{}, false, nil
	}
	if err != nil {
		return row{}, false, err
	}
	defer closer.Close()
	out, err := decodeRow(val)
	if err != nil {
		return row{}, false, fmt.Errorf("%w at %q", err, suffix)
	}
	return out, true, nil
}

func dayOf(t time.Time) string { return t.UTC().Format(time.DateOnly) }
