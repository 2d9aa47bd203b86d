package counter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/lastuse"
	"github.com/tidings-dev/tidings/notifier/rediscounts"
)

// How registries share last uses
//
// The table of last uses on this disk is complete for the requests that this registry has
// answered. Redis has the latest times of all registries (rediscounts/uses.go). Each round
// sends the rows that have changed, which a hot image does once an hour, and then the mark of
// this registry: all its uses up to a time are in Redis. The changed rows are in memory only,
// so the first round of a process sends all rows.
//
// Marks are numbered, and the last number that Redis acknowledged is on disk. If Redis has an
// older mark or none, it has lost rows of any registry. The registry then begins a new epoch,
// unless another one has, and all registries send all their rows. A registry that does not is
// known to be missing in the epoch; its uses are not known for the time before it.
//
// A crash at any point leaves rows in Redis that are sent again, or a mark that Redis has and
// the disk has not, whose number is higher than the acknowledged one: no loss is noticed.

// sharedUses is what the data folder stores of the last uses in Redis.
type sharedUses struct {
	ID     string                `json:"id"` // registry id of the mark
	Epoch  rediscounts.UsesEpoch `json:"epoch"`
	Seq    uint64                `json:"seq"`            // of the last mark that Redis acknowledged
	Joined time.Time             `json:"joined"`         // losses since then are noticed
	Seen   []string              `json:"seen,omitempty"` // registry ids that were in Redis, sorted
}

// maxSeen is the number of registry ids that are remembered.
const maxSeen = 4096

// maxUnsentUses is the number of changed rows that are kept while Redis is unavailable, about
// 3 MB. If there are more, all rows are sent.
const maxUnsentUses = 1 << 14

// usesPublisher is the state of sending last uses between rounds.
type usesPublisher struct {
	all     bool // send all rows
	wroteAt time.Time
	since   time.Time // in the last mark

	target   rediscounts.Sequences // the last events in the journal at targetAt; nil: to be read
	targetAt time.Time
	upto     time.Time // all events up to here are folded
}

func (c *Counter) loadSharedUses() error {
	raw, err := store.Read(c.db, []byte(sharedUsesKey))
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, &c.sharedUses); err != nil {
		c.sharedUses = sharedUses{}
		c.log.Error("damaged state of the last uses in Redis; those of other registries are known from now on", "error", err)
	}
	return nil
}

// noteUses remembers the rows that a fold has changed. The caller must hold c.mu.
func (c *Counter) noteUses() {
	if c.redis == nil || c.newUses == nil {
		return
	}
	c.newUses.Changed(func(change lastuse.Change) { c.unsentUses[change.ID] = change })
	c.newUses = nil
	c.limitUnsentUses()
}

// limitUnsentUses bounds the memory for changed rows. The caller must hold c.mu.
func (c *Counter) limitUnsentUses() {
	if len(c.unsentUses) > maxUnsentUses {
		c.unsentUses, c.unsentDropped = map[lastuse.ID]lastuse.Change{}, true
	}
}

// observe moves upto to the last time at which all events in the journal were folded.
func (p *usesPublisher) observe(c *Counter, now time.Time) {
	if p.target == nil {
		p.target, p.targetAt = rediscounts.Sequences{}, now
		for stream := uint8(0); c.cfg.LastEvent != nil && stream < 8; stream++ {
			p.target[stream] = c.cfg.LastEvent(stream)
		}
	}
	c.mu.Lock()
	folded := c.folded()
	c.mu.Unlock()
	if !p.target.Beyond(folded) {
		p.upto, p.target = p.targetAt, nil
	}
}

// shareUses sends the uses that have changed, all of them after a loss, and the mark.
func (r *round) shareUses(ids map[string]string) error {
	c, p := r.c, &r.c.publisher.uses
	now := c.cfg.Now()
	p.observe(c, now)
	state, err := c.redis.ReadUsesState(r.ctx)
	if err != nil {
		return err
	}
	next, epoch := c.nextSharedUses(state, now)
	if state.Epoch != epoch {
		if err := c.redis.WriteUses(r.ctx, rediscounts.UsesWrite{Expected: state.Epoch, Next: epoch}); err != nil {
			return err
		}
	}
	next.see(ids, state, now)
	sent, err := r.sendUses(next)
	if err != nil {
		return err
	}
	since, age := c.UsesSince(), now.Sub(p.wroteAt)
	if !sent && since.Equal(p.since) && !r.releasing && age >= 0 && age < heartbeatInterval {
		return nil
	}
	mark := &rediscounts.UsesMark{Epoch: epoch, Seq: next.Seq, Since: since, Upto: p.upto, Stopped: r.releasing && p.target == nil}
	if err := c.redis.WriteUses(r.ctx, rediscounts.UsesWrite{ID: next.ID, Expected: epoch, Mark: mark}); err != nil {
		return err
	}
	p.wroteAt, p.since = now, since
	return c.saveSharedUses(next)
}

const stopUsesTimeout = 600 * time.Millisecond

// stopUses sends what is left before the process ends.
func (c *Counter) stopUses(r round) error {
	ctx, cancel := context.WithTimeout(r.ctx, stopUsesTimeout)
	defer cancel()
	r.ctx = ctx                   // the rest of the time is for the record
	c.publisher.uses.target = nil // the events up to now, not up to an earlier round
	return r.shareUses(nil)
}

// nextSharedUses returns the state after the next mark, and the epoch that it belongs to.
func (c *Counter) nextSharedUses(state rediscounts.UsesState, now time.Time) (next sharedUses, epoch rediscounts.UsesEpoch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next = c.sharedUses
	next.Seen = slices.Clone(next.Seen)
	id := c.reg.id()
	mark := state.Marks[id]
	lost := next.ID == id && mark.Seq < next.Seq
	epoch = state.Epoch
	if epoch == "" || lost && epoch == next.Epoch {
		epoch = rediscounts.NewUsesEpoch(now)
	}
	if lost || next.ID != id || next.Epoch != epoch {
		c.publisher.uses.all = true
	}
	if next.Joined.IsZero() {
		next.Joined = now.UTC()
	}
	next.Seq, next.ID, next.Epoch = max(next.Seq, mark.Seq)+1, id, epoch
	return next, epoch
}

// see remembers the registry ids that are in Redis.
func (s *sharedUses) see(ids map[string]string, state rediscounts.UsesState, now time.Time) {
	all := slices.AppendSeq(s.Seen, maps.Keys(ids))
	all = slices.AppendSeq(all, maps.Keys(state.Marks))
	slices.Sort(all)
	s.Seen = slices.Compact(all)
	if len(s.Seen) > maxSeen {
		s.Seen, s.Joined = nil, now.UTC()
	}
}

// sendUses sends changed rows, or all of them, and reports whether there were any. What was
// not sent is sent by the next round.
func (r *round) sendUses(to sharedUses) (sent bool, err error) {
	c, p := r.c, &r.c.publisher.uses
	c.mu.Lock()
	p.all = p.all || c.unsentDropped
	unsent := c.unsentUses
	c.unsentUses, c.unsentDropped = map[lastuse.ID]lastuse.Change{}, false
	snap := c.db.NewSnapshot() // has all that is in unsent
	c.mu.Unlock()
	defer snap.Close()
	defer func() {
		if err != nil {
			c.restoreUnsentUses(unsent)
		}
	}()
	var batch []lastuse.Change
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		sent = true
		err := c.redis.WriteUses(r.ctx, rediscounts.UsesWrite{Expected: to.Epoch, Changes: batch})
		batch = batch[:0]
		if late := c.cfg.Now().Sub(c.publisher.wroteAt) >= heartbeatInterval; err == nil && late && !r.releasing {
			err = r.writeRecord() // sending all rows can take longer
		}
		return err
	}
	add := func(change lastuse.Change) error {
		if batch = append(batch, change); len(batch) == rediscounts.RowsInCall {
			return flush()
		}
		return nil
	}
	for _, change := range unsent {
		if !p.all || change.Deleted != 0 {
			if err := add(change); err != nil {
				return sent, err
			}
		}
	}
	if p.all {
		err := c.lastUse.All(snap, func(id lastuse.ID, u lastuse.Use) error { return add(lastuse.Change{ID: id, Use: u}) })
		if err != nil {
			return sent, err
		}
	}
	if err := flush(); err != nil {
		return sent, err
	}
	sent = sent || p.all // the mark of the epoch is due
	p.all = false
	return sent, nil
}

// restoreUnsentUses puts back rows that could not be sent.
func (c *Counter) restoreUnsentUses(unsent map[lastuse.ID]lastuse.Change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, change := range c.unsentUses {
		unsent[id] = change
	}
	c.unsentUses = unsent
	c.limitUnsentUses()
}

func (c *Counter) saveSharedUses(next sharedUses) error {
	raw, err := json.Marshal(next)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sharedUses = next
	return c.db.Set([]byte(sharedUsesKey), raw, store.NoSync)
}

// AllUses calls visit with the last use of the tags and manifests of a repository in all
// registries that share the Redis, until it returns an error. One may be visited twice. It
// returns which uses are known: those of lastuse.KeepDays at most. If Redis cannot be read,
// those in other registries are not.
func (c *Counter) AllUses(ctx context.Context, repository string, visit func(lastuse.Key, lastuse.Use) error) (lastuse.Known, error) {
	known, err := c.allUses(ctx, repository, visit)
	if oldest := lastuse.Oldest(c.cfg.Now()); err == nil && known.Since.Before(oldest) {
		known.Since = oldest
	}
	return known, err
}

func (c *Counter) allUses(ctx context.Context, repository string, visit func(lastuse.Key, lastuse.Use) error) (lastuse.Known, error) {
	if c.redis == nil {
		err := c.Uses(repository, visit)
		return lastuse.Known{Since: c.UsesSince()}, err
	}
	before, epoch, err := c.usesKnown(ctx)
	snap := c.db.NewSnapshot()
	defer snap.Close()
	reader := rediscounts.UsesReader{DB: c.redis, Table: c.lastUse, OnDisk: snap, Repository: repository, Visit: visit, RedisErr: err}
	if err := reader.Run(ctx); err != nil {
		return lastuse.Known{}, fmt.Errorf("read the last use in %s: %w", repository, err)
	}
	var known lastuse.Known
	var epochAfter rediscounts.UsesEpoch
	if err = reader.RedisErr; err == nil {
		known, epochAfter, err = c.usesKnown(ctx)
	}
	if err != nil {
		if ctx.Err() != nil {
			return lastuse.Known{}, ctx.Err()
		}
		return lastuse.Known{Since: c.UsesSince(), Missing: "the uses of the other registries, since Redis cannot be read: " + err.Error()}, nil
	}
	if epoch != epochAfter && known.Missing == "" {
		known.Missing = errUsesLost.Error()
	}
	if known.Missing == "" {
		known.Missing = before.Missing
	}
	return known, nil
}

var errUsesLost = errors.New("uses were lost in Redis, and the registries are sending them again")

// usesTimeout is how long a reader waits for the marks in Redis.
const usesTimeout = 10 * time.Second

// usesKnown returns which uses are known, and the epoch in Redis.
func (c *Counter) usesKnown(ctx context.Context) (lastuse.Known, rediscounts.UsesEpoch, error) {
	ctx, cancel := context.WithTimeout(ctx, usesTimeout)
	defer cancel()
	c.mu.Lock() // before Redis is read: its marks are not older than this
	self, shared, since := c.reg.id(), c.sharedUses, c.usesSince
	c.mu.Unlock()
	// The uses are read first: a registry has a record before it has a mark.
	state, err := c.redis.ReadUsesState(ctx)
	if err != nil {
		return lastuse.Known{}, "", err
	}
	records, err := c.redis.Records(ctx)
	if err != nil {
		return lastuse.Known{}, "", err
	}
	known := state.Known(self, shared.Seen, records, c.cfg.Now())
	for _, t := range []time.Time{since, shared.Joined} {
		if known.Since.Before(t) {
			known.Since = t
		}
	}
	switch {
	case shared.Joined.IsZero():
		known.Missing = "this registry has not exchanged its uses with the others yet"
	case state.Epoch != shared.Epoch || state.Marks[self].Seq < shared.Seq:
		known.Missing = errUsesLost.Error()
	}
	return known, state.Epoch, nil
}
