package counter

import (
	"errors"
	"fmt"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/rediscounts"
)

// writer is the state of writing under a registry id.
type writer struct {
	id       string
	epoch    epoch
	current  bool                      // the folder's current id, under which pending rows are sent
	expected string                    // record that Redis has
	next     func() rediscounts.Record // builds the record of the next call
	calls    int
}

func (r *round) currentWriter() *writer {
	c := r.c
	c.mu.Lock()
	defer c.mu.Unlock()
	return &writer{
		id: c.reg.id(), epoch: c.reg.epoch(), current: true, expected: c.reg.Record,
		next: func() rediscounts.Record {
			rec := c.newRecord()
			rec.Upto = r.upto
			if r.releasing {
				rec.Instance = ""
			}
			return rec
		},
	}
}

// unansweredCall is a call that failed but may have been executed.
type unansweredCall struct {
	id    string
	rec   rediscounts.Record
	items []*item
}

// send writes rows; with compare, only those that differ in Redis.
func (r *round) send(w *writer, items []*item, compare bool) error {
	if len(items) == 0 {
		return nil
	}
	if r.report != nil {
		for _, it := range items {
			it.field = r.c.fieldOf(w.id, it)
		}
		return r.reportRows(items)
	}
	items, err := r.assignPositions(w, items)
	if err != nil {
		return err
	}
	for _, it := range items {
		it.field = r.c.fieldOf(w.id, it)
	}
	inRedis := make([]string, len(items))
	if compare {
		if inRedis, err = r.fetch(items); err != nil {
			return err
		}
	}
	var changes []rediscounts.Change
	var sent []*item
	for i, it := range items {
		text := it.sum.Text(it.id.Kind)
		if compare && inRedis[i] == text && it.sum.Counted() {
			continue
		}
		if it.field.Key != "" {
			changes = append(changes, rediscounts.Change{Field: it.field, Text: text})
		}
		sent = append(sent, it)
	}
	if len(sent) == 0 {
		return nil
	}
	return r.call(w, changes, sent)
}

// fieldOf returns the field in Redis that has a row.
func (c *Counter) fieldOf(id string, it *item) rediscounts.Field {
	return c.redis.Keys.Field(id, it.id, it.sum.Position)
}

// assignPositions assigns the lowest free position, or else the next one, to each tag
// without a position. Positions are committed before Redis has the tag, since a tag at two
// positions would be counted twice. If the next position was assigned, the totals, which
// have the highest position, are sent as well.
func (r *round) assignPositions(w *writer, items []*item) ([]*item, error) {
	c := r.c
	c.mu.Lock()
	defer c.mu.Unlock()
	a := assignment{c: c, w: w, b: c.db.NewIndexedBatch(), items: items, totals: map[string]*item{}}
	for _, it := range items {
		if it.id.Kind == counts.PerRepository {
			a.totals[it.id.Repository] = it
		}
	}
	for _, it := range items {
		if it.id.Kind != counts.PerTag || it.sum.Position != 0 || !it.sum.Counted() {
			continue
		}
		if err := a.assign(it); err != nil {
			return nil, errors.Join(err, a.b.Close())
		}
	}
	if a.b.Empty() {
		return items, a.b.Close()
	}
	return a.items, c.db.Commit(a.b, store.Sync)
}

// assignment is the batch that assigns positions.
type assignment struct {
	c      *Counter
	w      *writer
	b      store.Batch
	items  []*item
	totals map[string]*item // by repository
}

func (a *assignment) assign(tag *item) error {
	position, err := takeFreePosition(a.b, tag.id.Repository, a.w.epoch)
	if err == nil && position == 0 {
		position, err = a.nextPosition(tag.id.Repository)
	}
	if err != nil {
		return err
	}
	tag.base.Position, tag.sum.Position = position, position
	return a.b.Set(baseKey(tag.id, a.w.epoch), tag.base.Encode())
}

// nextPosition increments the highest position of a repository.
func (a *assignment) nextPosition(repository string) (uint64, error) {
	total := a.totals[repository]
	if total == nil {
		var err error
		if total, err = a.c.load(a.b, counts.OfRepository(repository), a.w); err != nil {
			return 0, err
		}
		a.totals[repository] = total
		a.items = append(a.items, total)
	}
	total.base.Position++
	total.sum.Position = total.base.Position
	return total.base.Position, a.b.Set(baseKey(total.id, a.w.epoch), total.base.Encode())
}

// takeFreePosition returns the lowest free position and deletes its key; 0 if there is none.
func takeFreePosition(b store.Batch, repository string, e epoch) (uint64, error) {
	prefix := freeStart(repository, e)
	var position uint64
	err := store.Scan(b, prefix, func(key, _ []byte) error {
		if len(key) != len(prefix)+8 {
			return fmt.Errorf("damaged key %q", key)
		}
		for _, c := range key[len(prefix):] {
			position = position<<8 | uint64(c)
		}
		return errStop
	})
	if err != nil && !errors.Is(err, errStop) {
		return 0, err
	}
	if position == 0 {
		return 0, nil
	}
	return position, b.Delete(freeKey(repository, e, position))
}

// fetch reads the values that Redis has for some rows.
func (r *round) fetch(items []*item) ([]string, error) {
	fields := make([]rediscounts.Field, len(items))
	for i, it := range items {
		fields[i] = it.field
	}
	return r.c.redis.Values(r.ctx, fields)
}

// call writes changes and the record, and applies the items that were sent.
func (r *round) call(w *writer, changes []rediscounts.Change, items []*item) error {
	c := r.c
	next := w.next()
	if w.current {
		c.publisher.unanswered = &unansweredCall{w.id, next, items}
		c.status.sending(w.id, next.Encode())
	}
	written, err := c.redis.Write(r.ctx, w.id, w.expected, next, changes)
	if w.current && (err == nil || errors.Is(err, rediscounts.ErrChanged)) {
		c.publisher.unanswered = nil
	}
	if err != nil {
		return err
	}
	w.calls++
	w.expected = next.Encode()
	damaged := map[string]bool{}
	for _, key := range written.Damaged {
		damaged[key] = true
		r.damaged[key] = rediscounts.NotAHash(key)
	}
	r.rows += len(items)
	if !w.current {
		return nil
	}
	c.publisher.wroteAt = c.cfg.Now()
	if !written.Clock.IsZero() {
		c.mu.Lock()
		c.publisher.clockAhead, c.publisher.clockCheckedAt = written.Clock.Sub(c.cfg.Now()), c.cfg.Now()
		c.mu.Unlock()
	}
	return c.acknowledge(next, func(b store.Batch) error { return c.applySent(b, items, damaged) })
}

// confirmUnanswered applies the last call if it was executed: Redis then has its record.
func (r *round) confirmUnanswered(ids map[string]string) error {
	c, f := r.c, r.c.publisher.unanswered
	c.publisher.unanswered = nil
	if f == nil || ids[f.id] != f.rec.Encode() {
		return nil
	}
	return c.acknowledge(f.rec, func(b store.Batch) error { return c.applySent(b, f.items, nil) })
}
