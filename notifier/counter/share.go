package counter

import (
	"fmt"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/classify"
	"github.com/tidings-dev/tidings/notifier/counter/pushed"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/rediscounts"
)

// Registries exchange index entries and changes of tags through a stream in Redis.
//
// The stream loses its oldest entries and can be lost as a whole, and a crash loses what was
// not sent yet. A missing child is learned when its index is pulled. The entries of an index
// whose delete was missed are kept until their generation is dropped.
//
// Registries that share their storage each have counts of the same tags, but only one of
// them observes a delete. It notifies the others, so that they drop their counts of the tag
// later (prune.go), and likewise notifies them of a push of a tag that was deleted. After a
// lost delete the other registries keep their counts of the tag. After a lost push they do
// not drop them either, since prune asks storage first.
//
// The stream is read again after a restart. A change of a tag has the day of its entry, so
// applying it twice gives the same row. The order of the stream decides whether a delete or
// a push was last.

// What is kept while Redis is unavailable. Index entries that do not fit are learned by
// the other registries when they serve the index.
const (
	maxUnsentEntries = 1 << 14
	maxTagChanges    = 4096
)

// share sends what this registry has learned and receives what others have.
func (r *round) share() error {
	if err := r.sendEntries(); err != nil {
		return fmt.Errorf("share children of indexes: %w", err)
	}
	if err := r.sendTagChanges(); err != nil {
		return fmt.Errorf("share changes of tags: %w", err)
	}
	p := &r.c.publisher
	var err error
	if p.streamPosition, err = r.c.redis.Receive(r.ctx, r.c.run, p.streamPosition, r.c.receive); err != nil {
		return fmt.Errorf("receive from other registries: %w", err)
	}
	return nil
}

func (r *round) sendEntries() error {
	c := r.c
	c.mu.Lock()
	all := c.unsentEntries
	c.unsentEntries = nil
	c.mu.Unlock()
	rest, err := c.redis.SendIndexEntries(r.ctx, c.run, all)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unsentEntries = append(rest, c.unsentEntries...)
	c.unsentEntries = c.unsentEntries[:min(len(c.unsentEntries), maxUnsentEntries)]
	return err
}

func (r *round) sendTagChanges() error {
	c := r.c
	c.mu.Lock()
	changes := c.tagChanges
	c.tagChanges = nil
	c.mu.Unlock()
	rest, err := c.redis.SendTagChanges(r.ctx, c.run, changes)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tagChanges = append(rest, c.tagChanges...)
	c.tagChanges = c.tagChanges[:min(len(c.tagChanges), maxTagChanges)]
	return err
}

// receive applies what another registry has learned.
func (c *Counter) receive(e rediscounts.StreamEntry) error {
	if len(e.Tags) > 0 {
		if err := c.applyTagChanges(e); err != nil {
			return err
		}
	}
	if len(e.IndexEntries) == 0 {
		return nil
	}
	if err := c.removeDeleted(e.IndexEntries); err != nil {
		return err
	}
	if c.cfg.Learn != nil {
		c.cfg.Learn(e.IndexEntries...)
	}
	return nil
}

// removeDeleted removes what is stored of manifests that were deleted through another
// registry.
func (c *Counter) removeDeleted(entries []classify.IndexEntry) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.db.NewBatch()
	for _, l := range entries {
		if !l.Deleted {
			continue
		}
		if err := c.entries.Remove(b, l.Index); err != nil {
			return err
		}
	}
	if b.Empty() {
		return b.Close()
	}
	return c.db.Commit(b, store.NoSync)
}

// applyTagChanges sets the state of the tags that this folder has counts of.
func (c *Counter) applyTagChanges(e rediscounts.StreamEntry) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	day, today := counts.DayOf(e.Time), counts.DayOf(c.cfg.Now())
	if day <= 0 || day > today {
		day = today
	}
	w := &writer{id: c.reg.id(), epoch: c.reg.epoch(), current: true}
	b := c.db.NewIndexedBatch()
	for _, change := range e.Tags {
		if err := c.applyTagChange(b, w, change, day); err != nil {
			return err
		}
	}
	return c.db.Commit(b, store.NoSync)
}

// applyTagChange sets the state of a tag. The caller must hold c.mu.
func (c *Counter) applyTagChange(b store.Batch, w *writer, change rediscounts.TagChange, day int64) error {
	it, err := c.load(b, counts.OfTag(change.Repository, change.Tag), w)
	if err != nil {
		return err
	}
	if !it.sum.Counted() || change.Deleted == it.sum.TagState.Deleted() {
		return nil
	}
	key := pendingKey(it.id, liveRun+c.run)
	pending, _, err := readRow(b, key)
	if err != nil {
		return err
	}
	if pending.TagState = counts.Present; change.Deleted {
		pending.TagState = counts.DeletedOn(day)
		if err := pushed.Delete(b, change.Repository, change.Tag); err != nil {
			return err
		}
	}
	return b.Set(key, pending.Encode())
}
