package counter

import (
	"context"
	"errors"
	"fmt"

	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/rediscounts"
)

// CompareRedis compares the counts of this folder with those in Redis and calls visit with
// each difference; repository is empty for one that affects all repositories. It writes
// nothing. Counts that were not sent yet are no difference. Without Redis it does nothing.
func (c *Counter) CompareRedis(ctx context.Context, visit func(repository, detail string) error) error {
	if c.redis == nil {
		return nil
	}
	c.publishing.Lock()
	defer c.publishing.Unlock()
	defer c.publisher.compareAll()
	r := &round{c: c, ctx: ctx, damaged: map[string]error{}, report: visit}
	ids, err := c.redis.Records(ctx)
	if err != nil {
		return fmt.Errorf("read registry ids: %w", err)
	}
	if err := c.checkOlderIDs(ids, visit); err != nil {
		return err
	}
	rec := rediscounts.ParseRecord(ids[c.reg.id()])
	switch counted, err := c.hasCounts(c.reg.epoch()); {
	case err != nil:
		return err
	case rec == nil && counted:
		return visit("", "Redis has lost the counts of the registry id "+c.reg.id())
	case rec == nil:
		return nil // nothing was sent yet
	case !c.covers(rec):
		return visit("", "Redis has other counts of the registry id "+c.reg.id()+
			" than this folder; the next start takes a new id")
	}
	r.takeSnapshot()
	defer r.snap.Close()
	if err := r.compare(); err != nil {
		return fmt.Errorf("compare with Redis: %w", err)
	}
	for _, err := range r.damaged {
		if err := visit("", err.Error()); err != nil {
			return err
		}
	}
	return nil
}

// checkOlderIDs reports older registry ids of this folder that Redis has lost.
func (c *Counter) checkOlderIDs(ids map[string]string, visit func(repository, detail string) error) error {
	for i, id := range c.reg.IDs[:len(c.reg.IDs)-1] {
		counted, err := c.hasCounts(epoch(i + 1))
		if err != nil {
			return err
		}
		if counted && ids[id] == "" {
			if err := visit("", "Redis has lost the counts of the older registry id "+id); err != nil {
				return err
			}
		}
	}
	return nil
}

// covers reports whether this folder has all events of a record of its id.
func (c *Counter) covers(rec *rediscounts.Record) bool {
	limit, known := c.reg.ended(rec.Owner)
	if rec.Owner == "" || rec.Owner == c.run {
		c.mu.Lock()
		limit, known = c.folded(), true
		c.mu.Unlock()
	}
	return known && !rec.Kept && !rec.Removed && !rec.Upto.Beyond(limit)
}

// hasCounts reports whether any count was sent to Redis in an epoch.
func (c *Counter) hasCounts(e epoch) (counted bool, err error) {
	rows, err := newRows(c.db, e, false, "")
	if err != nil {
		return false, err
	}
	it, err := rows.next(c.cfg.Now())
	for it != nil && err == nil && !it.base.Counted() {
		it, err = rows.next(c.cfg.Now())
	}
	return it != nil && it.base.Counted(), errors.Join(err, rows.close())
}

// reportRows reports rows that differ in Redis. Counts between the acknowledged and the
// pending ones are no difference, since an unanswered call may have been executed.
func (r *round) reportRows(items []*item) error {
	inRedis, err := r.fetch(items)
	if err != nil {
		return err
	}
	for i, it := range items {
		got := counts.ParseText(inRedis[i])
		for class, n := range got.Counts {
			if it.field.Key == "" || it.base.Counts[class] <= n && n <= it.sum.Counts[class] {
				continue
			}
			detail := fmt.Sprintf("Redis has %d %s of %s, and this registry has %d",
				n, counts.Classes[class], it.id, it.base.Counts[class])
			if err := r.report(it.id.Repository, detail); err != nil {
				return err
			}
		}
	}
	return nil
}
