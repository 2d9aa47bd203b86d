package counter

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/counter/pushed"
	"github.com/tidings-dev/tidings/notifier/counter/steady"
	"github.com/tidings-dev/tidings/notifier/counts"
)

const (
	// extraDays are kept in addition to counts.KeepDays, since days in the future, on
	// which events were counted while the clock was ahead, must not displace real ones.
	extraDays = 14
	// deletedTagDays is how many days the counts of a deleted tag are kept.
	deletedTagDays = 30
	// maxStorageChecks bounds the tags that one prune looks up in storage, so that it
	// takes seconds even with an object store.
	maxStorageChecks = 500
	// maxStorageErrors is the number of failed lookups after which a prune makes no
	// more of them.
	maxStorageErrors = 5

	dayMillis = 24 * 3600 * 1000
)

// prune drops what is no longer needed. Run calls it. Totals are kept.
//
//   - Each repository keeps its newest days with counts, counts.KeepDays and extraDays of
//     them, however old they are, so nothing is lost by a wrong clock.
//   - The counts of tags that were deleted deletedTagDays ago and that storage does not
//     have, times in the future, and the keys of pushes older than counts.KeepDays are
//     dropped only while the clock is trusted (clock.go).
//   - Last uses older than lastuse.KeepDays are dropped likewise, except those of tags that have
//     counts.
//   - Days in the future are dropped after the clock was ahead and has come back. They are
//     kept if the clock was only set back, since the new time may be the wrong one.
func (c *Counter) prune() error {
	if err := c.db.Space(); err != nil {
		return err
	}
	trusted, clock, err := c.clockTrusted()
	if err != nil {
		return fmt.Errorf("check the clock: %w", err)
	}
	if err := c.pruneRows(trusted, clock); err != nil {
		return fmt.Errorf("drop old counts: %w", err)
	}
	c.mu.Lock()
	c.trusted = trusted
	c.mu.Unlock()
	if !trusted {
		return nil
	}
	if err := c.eachOldUse(context.Background(), c.dropUses); err != nil {
		return fmt.Errorf("drop old last uses: %w", err)
	}
	oldest := counts.DayOf(c.cfg.Now()) + 1 - counts.KeepDays
	if err := pushed.Drop(c.db, &c.mu, oldest); err != nil {
		return fmt.Errorf("drop old pushes: %w", err)
	}
	return nil
}

// pruneRows visits all rows, one repository at a time.
func (c *Counter) pruneRows(trusted bool, clock steady.State) error {
	snap := c.db.NewSnapshot()
	defer snap.Close()
	p := pruning{c: c, trusted: trusted, today: counts.DayOf(c.cfg.Now())}
	p.futureDay = math.MaxInt64
	if trusted && clock.Back {
		p.futureDay = max(counts.DayOf(clock.Ahead), p.today+3)
	}
	for _, prefix := range localPrefixes {
		err := scanRows(snap, prefix, []byte(prefix), func(id counts.ID, end string, row counts.Row) error {
			if id.Repository != p.repository {
				if err := p.finish(); err != nil {
					return err
				}
				p.repository = id.Repository
			}
			return p.visit(storedRow{prefix: prefix, id: id, end: end}, row)
		})
		if err == nil {
			err = p.finish()
		}
		if err != nil {
			return err
		}
		p.repository = ""
	}
	return p.flush()
}

// pruning is the state of a prune.
type pruning struct {
	c         *Counter
	trusted   bool
	today     int64
	futureDay int64 // first day that was counted while the clock was ahead
	asked     int   // lookups in storage
	failed    int   // failed ones

	repository string
	future     []storedRow // totals with times in the future
	last       counts.Row  // the newest days that have a pull or a push, as times
	days       []storedRow // oldest first
	seen       int         // number of different days
	drops      []storedRow
}

// storedRow is a row that may be dropped.
type storedRow struct {
	prefix string
	id     counts.ID
	end    string
	day    int64
}

func (p *pruning) visit(r storedRow, row counts.Row) error {
	switch r.id.Kind {
	case counts.PerRepository:
		if tomorrow := (p.today + 2) * dayMillis; p.trusted && max(row.LastPull, row.LastPush) >= tomorrow {
			p.future = append(p.future, r)
		}
	case counts.PerDay:
		day, ok := counts.ParseDay(r.id.Name)
		if !ok {
			return nil
		}
		r.day = day
		if day >= p.futureDay {
			return p.drop(r)
		}
		if row.Counts[counts.Pull.Index()] > 0 {
			p.last.LastPull = day * dayMillis
		}
		if row.Counts[counts.Push.Index()] > 0 {
			p.last.LastPush = day * dayMillis
		}
		if n := len(p.days); n == 0 || p.days[n-1].day != day {
			p.seen++
		}
		p.days = append(p.days, r)
	case counts.PerTag:
		since, deleted := row.TagState.Day()
		if deleted && p.trusted && r.prefix == basePrefix && since <= p.today && since+deletedTagDays <= p.today {
			return p.dropTag(r)
		}
	}
	return nil
}

// dropTag drops the row of a tag that was deleted deletedTagDays ago, unless storage has the
// tag: a delete and a push at the same time may have been folded in the wrong order.
func (p *pruning) dropTag(r storedRow) error {
	if p.c.cfg.HasTag == nil {
		return p.drop(r)
	}
	if p.asked >= maxStorageChecks || p.failed >= maxStorageErrors {
		return nil // a later prune checks it
	}
	p.asked++
	tagged, err := p.c.cfg.HasTag(r.id.Repository, r.id.Name)
	if err != nil {
		p.failed++
		p.c.log.Warn("counts of a deleted tag are kept, since storage can't be asked for the tag",
			"repository", r.id.Repository, "tag", r.id.Name, "error", err)
		return nil
	}
	if tagged {
		return p.c.markPresent(r)
	}
	return p.drop(r)
}

// markPresent records that a tag exists.
func (c *Counter) markPresent(r storedRow) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.db.NewIndexedBatch()
	key := []byte(r.prefix + rowKey(r.id) + r.end)
	now, known, err := readRow(b, key)
	if err != nil || !known {
		return err
	}
	now.TagState = counts.Present
	if err := b.Set(key, now.Encode()); err != nil {
		return err
	}
	return c.db.Commit(b, store.NoSync)
}

// finish ends the visit of a repository: it drops the oldest days if there are too many, and
// replaces times in the future by the newest days.
func (p *pruning) finish() error {
	for _, r := range p.future {
		if err := p.c.resetTimes(r, p.last, (p.today+2)*dayMillis); err != nil {
			return err
		}
	}
	p.future, p.last = nil, counts.Row{}
	days := p.days
	for i := 0; p.seen > counts.KeepDays+extraDays && i < len(days); i++ {
		if err := p.drop(days[i]); err != nil {
			return err
		}
		if i+1 == len(days) || days[i+1].day != days[i].day {
			p.seen--
		}
	}
	p.days, p.seen = nil, 0
	return nil
}

func (p *pruning) drop(r storedRow) error {
	if p.drops = append(p.drops, r); len(p.drops) < batchRows {
		return nil
	}
	return p.flush()
}

func (p *pruning) flush() error {
	rows := p.drops
	p.drops = nil
	if len(rows) == 0 {
		return nil
	}
	c := p.c
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.db.NewIndexedBatch()
	for _, r := range rows {
		if err := c.dropRow(b, r, p); err != nil {
			return err
		}
	}
	return c.db.Commit(b, store.NoSync)
}

// dropRow drops a row, unless its tag has pending counts. A row that Redis has is emptied
// and sent once more; it is deleted when Redis has acknowledged that. The caller must hold
// c.mu.
func (c *Counter) dropRow(b store.Batch, r storedRow, p *pruning) error {
	key := []byte(r.prefix + rowKey(r.id) + r.end)
	now, _, err := readRow(b, key)
	if err != nil {
		return err
	}
	if r.id.Kind == counts.PerTag {
		pending, err := store.Has(b, pendingKey(r.id, liveRun+c.run))
		if err != nil || pending {
			return err // a later prune drops it
		}
	}
	if r.prefix == basePrefix && r.end == c.reg.epoch().end() && c.redis != nil {
		if err := b.Set(key, counts.Row{Position: now.Position}.Encode()); err != nil {
			return err
		}
		return c.enqueue(b, r.id)
	}
	if err := b.Delete(key); err != nil || r.id.Kind != counts.PerTag || now.Position == 0 || r.end == elsewhere.end() {
		return err
	}
	e, _ := binary.Uvarint([]byte(r.end))
	return b.Set(freeKey(r.id.Repository, epoch(e), now.Position), nil)
}

// resetTimes replaces times at or after limit by those of last.
func (c *Counter) resetTimes(r storedRow, last counts.Row, limit int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.db.NewIndexedBatch()
	key := []byte(r.prefix + rowKey(r.id) + r.end)
	now, _, err := readRow(b, key)
	if err != nil {
		return err
	}
	if now.LastPull >= limit {
		now.LastPull = last.LastPull
	}
	if now.LastPush >= limit {
		now.LastPush = last.LastPush
	}
	if err := b.Set(key, now.Encode()); err != nil {
		return err
	}
	if r.prefix == basePrefix && r.end == c.reg.epoch().end() && c.redis != nil {
		if err := c.enqueue(b, r.id); err != nil {
			return err
		}
	}
	return c.db.Commit(b, store.NoSync)
}
