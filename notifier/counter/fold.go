package counter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/counter/pushed"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/lastuse"
	"github.com/tidings-dev/tidings/notifier/rediscounts"
)

// How an event is counted exactly once.
//
// A Fold commits one synced batch: the changed rows, the keys for retags, index entries,
// the last use of tags and manifests, the caller's own keys, and the cursor of the journal's
// stream. After a crash either all of them are on disk or none. The caller continues to read
// after the cursor, so an event is folded again only if its batch was lost. A commit that
// returns an error may have been applied; the cursor is then read from the store again, and
// a repeated Fold up to the cursor does nothing.
//
// With Redis, facts are added to a pending row, whose key ends in the id of the process
// (its run), and not to the base row, which is what Redis is known to have. Publishing
// sends the sum of base row and pending rows. Then, in one batch, the sum becomes the base
// row and what was sent is subtracted from the pending rows. What was folded in the
// meantime stays pending.
//
// The store can be older than its journal, if it was restored from a backup or lost. Events
// that are in the journal when Open is called (replayed events) may then be counted in
// Redis already. Those up to the Upto of this folder's record in Redis are added to the
// base rows of the epoch under which they were counted (registration.Skip), and so are not
// sent again. Until Redis has answered, the facts of replayed events are kept in separate
// pending rows (replayedRun): they are sent if Redis does not have the events, and otherwise
// merged into the base rows of that epoch.

// Fold adds facts to the counts and moves the cursor to upTo, in one batch that is durable
// when Fold returns. The facts must be those of all events after the last folded one
// (Latest) up to and including upTo. If the cursor is at upTo or later, Fold does nothing,
// does not call also, and returns nil, so a failed Fold can be repeated.
//
// also, if not nil, adds the caller's own keys to the batch.
//
// A push is counted as a retag as well if its digest has another tag, according to the
// pushes and deletes that were folded.
//
// The first Fold of a process waits for the answer of Redis for at most Config.AskTimeout.
func (c *Counter) Fold(journal string, stream uint8, upTo uint64, facts []counts.Fact, also func(store.Batch) error) error {
	if journal == "" || strings.ContainsAny(journal, "\x00/") {
		return fmt.Errorf("fold: invalid journal id %q", journal)
	}
	if c.redis == nil {
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
		// The batch may have been applied. The store has the cursor.
		c.lastUse.Forget()
		c.unsentDropped = true
		return fmt.Errorf("fold: %w", errors.Join(err, c.loadCursors(), c.loadEntries()))
	}
	c.cursors[cursorName(journal, stream)] = upTo
	added := c.entries.Added()
	c.unsentEntries = append(c.unsentEntries, added[:min(maxUnsentEntries-len(c.unsentEntries), len(added))]...)
	if c.cfg.Learn != nil && len(added) > 0 {
		c.cfg.Learn(added...)
	}
	c.noteUses()
	c.tagChanges = append(c.tagChanges, c.newTagChanges[:min(len(c.newTagChanges), maxTagChanges-len(c.tagChanges))]...)
	c.cfg.Metrics.folded(facts)
	c.cfg.Metrics.folded(c.newUnlisted)
	return nil
}

// A DamagedError is returned by Fold if a row that facts are added to can't be decoded. Nothing
// is folded. The other facts can be folded without these.
type DamagedError struct {
	Facts []int // their indexes
	Err   error // of the last of them
}

func (e *DamagedError) Error() string { return e.Err.Error() }
func (e *DamagedError) Unwrap() error { return e.Err }

func (c *Counter) commit(journal string, stream uint8, upTo uint64, facts []counts.Fact, also func(store.Batch) error) error {
	b := c.db.NewIndexedBatch()
	if err := c.fold(b, stream, facts); err != nil {
		return err
	}
	if err := b.Set(cursorKey(journal, stream), binary.BigEndian.AppendUint64(nil, upTo)); err != nil {
		return err
	}
	if err := c.putUseTracking(b, stream, upTo); err != nil {
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
	if err := c.db.Commit(b, store.Sync); err != nil {
		return err
	}
	c.unsaved = false
	return nil
}

func (c *Counter) fold(b store.Batch, stream uint8, facts []counts.Fact) error {
	now := c.cfg.Now()
	f := folding{
		c: c, b: b, now: now, today: counts.DayOf(now),
		tomorrow: now.Add(24 * time.Hour), oldest: counts.DayOf(now) + 1 - counts.KeepDays,
		all:  map[target]map[counts.ID]*counts.Row{},
		uses: c.lastUse.Changes(c.db, now),
	}
	c.entries.Begin()
	c.newTagChanges, c.newUnlisted = nil, nil
	var damaged DamagedError
	for i := range facts {
		if to := c.target(stream, facts[i].Seq); f.rows == nil || to != f.to {
			f.to, f.rows = to, f.all[to]
		}
		if f.rows == nil {
			f.rows = map[counts.ID]*counts.Row{}
			f.all[f.to] = f.rows
		}
		err := f.add(&facts[i])
		if err == nil {
			err = f.uses.Add(&facts[i])
		}
		if errors.Is(err, counts.ErrDamagedRow) || errors.Is(err, lastuse.ErrDamaged) {
			damaged.Facts, damaged.Err = append(damaged.Facts, i), err
			continue
		}
		if err != nil {
			return err
		}
	}
	if len(damaged.Facts) > 0 {
		return &damaged
	}
	if err := f.uses.Write(b); err != nil {
		return err
	}
	c.newUses = f.uses
	return f.write()
}

// target returns which rows an event is added to. The caller must hold c.mu.
func (c *Counter) target(stream uint8, seq uint64) target {
	switch {
	case c.redis == nil:
		return target{basePrefix, c.reg.epoch().end()}
	case seq != 0 && seq <= c.reg.Skip[stream]:
		return target{basePrefix, c.reg.SkipEpoch.end()}
	case seq != 0 && seq <= c.replayed[stream]:
		c.replayedEarly = c.replayedEarly || !c.redisKnown
		return target{pendingPrefix, replayedRun + c.run}
	}
	return target{pendingPrefix, liveRun + c.run}
}

// target is the prefix and the end of the keys of rows.
type target struct{ prefix, end string }

func (t target) key(id counts.ID) []byte { return []byte(t.prefix + rowKey(id) + t.end) }

// folding builds the batch of a Fold.
type folding struct {
	c        *Counter
	b        store.Batch
	now      time.Time
	today    int64
	tomorrow time.Time
	oldest   int64                     // first day that still has daily counts
	to       target                    // of the current fact
	rows     map[counts.ID]*counts.Row // of to
	all      map[target]map[counts.ID]*counts.Row
	uses     *lastuse.Changes
}

func (f *folding) add(fact *counts.Fact) error {
	if fact.Unlisted {
		return f.addUnlisted(*fact)
	}
	if fact.Deleted && fact.Tag == "" {
		return f.c.entries.Delete(f.b, fact.Repository, fact.Digest)
	}
	if err := f.c.entries.Add(f.b, fact.Repository, fact.Tag, fact.Digest, fact.Children, fact.Supporting); err != nil {
		return err
	}
	if fact.Deleted {
		return f.deleteTag(fact)
	}
	if fact.Class == "" {
		return nil
	}
	class := fact.Class.Index()
	if class < 0 || fact.Repository == "" {
		// A newer version has written the event. An error would stop all counting.
		f.c.log.Error("event of an unknown class is not counted", "class", fact.Class, "repository", fact.Repository)
		return nil
	}
	if err := f.count(fact, class); err != nil {
		return err
	}
	if fact.Class != counts.Push || fact.Tag == "" || fact.Digest == "" {
		return nil
	}
	again, err := pushed.Record(f.b, fact, f.today)
	if err != nil || !again {
		return err
	}
	return f.count(fact, counts.Retag.Index())
}

func (f *folding) count(fact *counts.Fact, class int) error {
	total, err := f.row(counts.OfRepository(fact.Repository))
	if err != nil {
		return err
	}
	total.Counts[class]++
	if !fact.Time.IsZero() {
		switch fact.Class {
		case counts.Pull:
			total.LastPull = counts.Later(total.LastPull, fact.Time.UnixMilli(), f.now)
		case counts.Push:
			total.LastPush = counts.Later(total.LastPush, fact.Time.UnixMilli(), f.now)
		}
	}
	if fact.Tag != "" {
		tag, err := f.row(counts.OfTag(fact.Repository, fact.Tag))
		if err != nil {
			return err
		}
		if fact.Class == counts.Push {
			if err := f.notePush(fact, *tag); err != nil {
				return err
			}
			tag.TagState = counts.Present
		}
		tag.Counts[class]++
	}
	day := counts.DayOf(fact.Time)
	if fact.Time.After(f.tomorrow) {
		day = f.today // the clock was ahead, so the day of the event is unknown
	}
	if fact.Time.IsZero() || day < f.oldest {
		return nil
	}
	today, err := f.row(counts.OfDay(fact.Repository, day))
	if err != nil {
		return err
	}
	today.Counts[class]++
	return nil
}

// deleteTag records that a tag was deleted. prune drops the row later unless the tag is
// pushed again.
func (f *folding) deleteTag(fact *counts.Fact) error {
	if fact.Repository == "" || fact.Tag == "" {
		return nil
	}
	tag, err := f.row(counts.OfTag(fact.Repository, fact.Tag))
	if err != nil {
		return err
	}
	tag.TagState = counts.DeletedOn(f.today)
	f.noteTagChange(fact, true)
	return pushed.Delete(f.b, fact.Repository, fact.Tag)
}

// notePush notifies the other registries of a push of a tag that they may take for deleted:
// a tag that is deleted here, or that this folder has no counts of.
func (f *folding) notePush(fact *counts.Fact, pending counts.Row) error {
	if f.c.redis == nil || pending.TagState == counts.Present {
		return nil
	}
	base, known, err := readRow(f.c.db, baseKey(counts.OfTag(fact.Repository, fact.Tag), f.c.reg.epoch()))
	if err != nil {
		return err
	}
	if pending.TagState == 0 {
		pending.TagState = base.TagState
	}
	if pending.TagState.Deleted() || !known && !pending.Counted() {
		f.noteTagChange(fact, false)
	}
	return nil
}

func (f *folding) noteTagChange(fact *counts.Fact, deleted bool) {
	if f.c.redis != nil {
		change := rediscounts.TagChange{Repository: fact.Repository, Tag: fact.Tag, Deleted: deleted}
		f.c.newTagChanges = append(f.c.newTagChanges, change)
	}
}

func (f *folding) row(id counts.ID) (*counts.Row, error) {
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
			if to.prefix == basePrefix && !r.Counted() {
				continue // a deleted tag that was never counted
			}
			if err := f.b.Set(to.key(id), r.Encode()); err != nil {
				return err
			}
		}
	}
	return nil
}
