package counter

import (
	_ "embed"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/redis/go-redis/v9"
	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/counts"
)

//go:embed publish.lua
var publishSource string

var publishScript = redis.NewScript(publishSource)

// writer writes rows under a registry id.
type writer struct {
	id       string
	epoch    epoch
	current  bool          // the folder's current id, under which pending rows are sent
	expected string        // record that Redis has
	next     func() record // builds the record of the next call
	calls    int
}

func (r *round) currentWriter() *writer {
	c := r.c
	c.mu.Lock()
	defer c.mu.Unlock()
	return &writer{
		id: c.reg.id(), epoch: c.reg.epoch(), current: true, expected: c.reg.Record,
		next: func() record {
			rec := c.newRecord()
			rec.Upto = r.upto
			if r.releasing {
				rec.Instance = ""
			}
			return rec
		},
	}
}

// op sets a field of a hash, or deletes it if text is empty.
type op struct{ key, field, text string }

// unansweredCall is a call that failed and may have been executed.
type unansweredCall struct {
	id    string
	rec   record
	items []*item
}

// rowsInCall bounds the rows of one call, so that it blocks Redis for less than a
// millisecond.
const rowsInCall = 256

// send writes rows; with compare, only those that are different in Redis.
func (r *round) send(w *writer, items []*item, compare bool) error {
	if len(items) == 0 {
		return nil
	}
	if r.report != nil {
		for _, it := range items {
			it.key = r.c.keyOf(w.id, it)
		}
		return r.reportRows(items)
	}
	items, err := r.assignPositions(w, items)
	if err != nil {
		return err
	}
	for _, it := range items {
		it.key = r.c.keyOf(w.id, it)
	}
	inRedis := make([]string, len(items))
	if compare {
		if inRedis, err = r.fetch(items); err != nil {
			return err
		}
	}
	var ops []op
	var sent []*item
	for i, it := range items {
		text := it.sum.Text(it.id.Kind)
		if compare && inRedis[i] == text && it.sum.Counted() {
			continue
		}
		if it.key != "" {
			ops = append(ops, op{it.key, fieldOf(it.id), text})
		}
		sent = append(sent, it)
	}
	if len(sent) == 0 {
		return nil
	}
	return r.call(w, ops, sent)
}

// keyOf returns the key of the hash in Redis that has a row; empty for a tag that was
// never sent.
func (c *Counter) keyOf(id string, it *item) string {
	switch it.id.Kind {
	case counts.PerRepository:
		return c.keys.totals(id, it.id.Repository)
	case counts.PerDay:
		return c.keys.days(id, it.id.Repository)
	}
	if it.sum.Position == 0 {
		return ""
	}
	return c.keys.tags(id, it.id.Repository, (it.sum.Position-1)/tagsInHash)
}

func fieldOf(id counts.ID) string {
	if id.Kind == counts.PerRepository {
		return id.Repository
	}
	return id.Name
}

// assignPositions gives each tag without a position the lowest free one, or the next
// one. It is committed before Redis has the tag: a tag at two positions would be
// counted twice. If a crash of the machine undoes the commit, it also undoes the
// record of the call, so the next claim compares everything and deletes the field at
// the forgotten position. After a new position the totals, which have the highest
// one, are sent as well.
func (r *round) assignPositions(w *writer, items []*item) ([]*item, error) {
	c := r.c
	c.mu.Lock()
	defer c.mu.Unlock()
	var b *pebble.Batch
	all := map[string]*item{} // totals, by repository
	for _, it := range items {
		if it.id.Kind == counts.PerRepository {
			all[it.id.Repository] = it
		}
	}
	changed := map[string]bool{}
	for _, it := range items {
		if it.id.Kind != counts.PerTag || it.sum.Position != 0 || !it.sum.Counted() {
			continue
		}
		if b == nil {
			b = c.db.NewIndexedBatch()
		}
		repository := it.id.Repository
		position, err := takeFreePosition(b, repository, w.epoch)
		if err != nil {
			return nil, err
		}
		if position == 0 {
			total := all[repository]
			if total == nil {
				if total, err = c.load(b, counts.OfRepository(repository), w); err != nil {
					return nil, err
				}
				all[repository] = total
				items = append(items, total)
			}
			total.base.Position++
			total.sum.Position = total.base.Position
			position = total.base.Position
			changed[repository] = true
		}
		it.base.Position, it.sum.Position = position, position
		if err := b.Set(baseKey(it.id, w.epoch), it.base.Encode(), nil); err != nil {
			return nil, err
		}
	}
	if b == nil {
		return items, nil
	}
	for repository := range changed {
		it := all[repository]
		if err := b.Set(baseKey(it.id, w.epoch), it.base.Encode(), nil); err != nil {
			return nil, err
		}
	}
	return items, c.db.Commit(b, pebble.Sync)
}

// takeFreePosition returns a position that a deleted tag had and removes it from the
// free ones; 0 if there is none.
func takeFreePosition(b *pebble.Batch, repository string, e epoch) (uint64, error) {
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
	return position, b.Delete(freeKey(repository, e, position), nil)
}

// fetch reads the values that Redis has for some rows.
func (r *round) fetch(items []*item) ([]string, error) {
	cmds := make([]*redis.StringCmd, len(items))
	_, err := r.c.cfg.Redis.Pipelined(r.ctx, func(p redis.Pipeliner) error {
		for i, it := range items {
			if it.key != "" {
				cmds[i] = p.HGet(r.ctx, it.key, fieldOf(it.id))
			}
		}
		return nil
	})
	inRedis := make([]string, len(items))
	for i, cmd := range cmds {
		if cmd == nil {
			continue
		}
		val, cmdErr := cmd.Result()
		switch {
		case cmdErr == nil:
			inRedis[i] = val
		case redis.HasErrorPrefix(cmdErr, "WRONGTYPE"):
			inRedis[i] = "?" // differs from any row, so that call reports the key
		case !errors.Is(cmdErr, redis.Nil):
			return nil, cmdErr
		}
	}
	if err != nil && !errors.Is(err, redis.Nil) && !redis.HasErrorPrefix(err, "WRONGTYPE") {
		return nil, err
	}
	return inRedis, nil
}

// call runs the publish script and applies what was sent.
func (r *round) call(w *writer, ops []op, items []*item) error {
	c := r.c
	next := w.next()
	keys, args := []string{c.keys.ids()}, []any{w.id, w.expected, next.encode()}
	var sets, deletes []any
	for i, o := range ops {
		// One argument group per sequence of ops on the same key; a key may
		// have several.
		if o.text == "" {
			deletes = append(deletes, o.field)
		} else {
			sets = append(sets, o.field, o.text)
		}
		if i+1 == len(ops) || ops[i+1].key != o.key {
			keys = append(keys, o.key)
			args = append(append(append(args, len(sets)/2, len(deletes)), sets...), deletes...)
			sets, deletes = nil, nil
		}
	}
	if w.current {
		c.publisher.unanswered = &unansweredCall{w.id, next, items}
		c.status.sending(w.id, next.encode())
	}
	reply, err := publishScript.Run(r.ctx, c.cfg.Redis, keys, args...).Slice()
	if err != nil {
		return r.typeError(err, c.keys.ids())
	}
	if w.current {
		c.publisher.unanswered = nil
	}
	if len(reply) < 2 || reply[0] != "ok" {
		return errLost // or another process owns the id: read the records again
	}
	w.calls++
	w.expected = next.encode()
	damaged := map[string]bool{}
	for _, key := range reply[2:] {
		key, _ := key.(string)
		damaged[key] = true
		r.damaged[key] = &damagedError{Key: key, Reason: "is not a hash"}
	}
	r.rows += len(items)
	if !w.current {
		return nil
	}
	c.publisher.wroteAt = c.cfg.Now()
	if seconds, _ := reply[1].(int64); seconds > 0 {
		c.mu.Lock()
		c.publisher.clockAhead, c.publisher.clockCheckedAt = time.Unix(seconds, 0).Sub(c.cfg.Now()), c.cfg.Now()
		c.mu.Unlock()
	}
	return c.acknowledge(next, func(b *pebble.Batch) error { return c.applySent(b, items, damaged) })
}

// confirmUnanswered applies the last call if its record is in Redis, which shows that
// it was executed.
func (r *round) confirmUnanswered(ids map[string]string) error {
	c, f := r.c, r.c.publisher.unanswered
	c.publisher.unanswered = nil
	if f == nil || ids[f.id] != f.rec.encode() {
		return nil
	}
	return c.acknowledge(f.rec, func(b *pebble.Batch) error { return c.applySent(b, f.items, nil) })
}
