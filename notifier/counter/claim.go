package counter

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/rediscounts"
)

// How a data folder claims its registry id.
//
// Only one process may write under a registry id: the one whose run is the owner in the
// id's record in Redis. Each call expects the record of the call before and replaces it, so
// the next call detects a record of another process, an older record and a missing one.
//
// A process claims an id by writing its run into the record. It may claim a record of an
// earlier process of the same folder, and a record of another folder that does not change
// for Config.WatchFor, since the folder was moved then. It takes a new id instead if
//
//   - the record covers events that this folder does not have: the folder was restored
//     from an older copy (set back);
//   - the record belongs to another folder and changes while it is watched: one of the two
//     folders is a copy of the other.
//
// The counts under the old id stay in Redis and in the sum. Locally they become the base
// rows of an older epoch, which are shown while Redis is unavailable, and sent again only
// if Redis has lost them.
//
// A folder that has lost its counts, but not its journal, adopts the registry id of the
// latest record with the journal's id. It is then treated as a folder that was set back:
// events up to the record's Upto are known to be in Redis.
//
// A copy of a folder also has a copy of its pending rows. So each claim enters the runs of
// all pending rows under its id. A run belongs to the first folder that enters it; another
// folder drops its copy of the rows.
//
// A new id is durable before it is used. After a crash at any point of a claim, the record
// names a process of this folder and the runs are entered under this folder's id, so the
// next process claims the id again and gets the same runs.
//
// Three cases are not exact, and one more if runs were removed (rediscounts/runs.go):
//
//   - A folder is copied while it is open in a process that has not reached Redis since its
//     start, and the copy reaches Redis first. What the process has counted since its start
//     is dropped, including what it counted after the copy was made.
//   - Redis is flushed after a copy has taken a new id and before it enters its runs. What
//     was pending when the copy was made can be counted twice.
//   - A process is killed between two calls of a round, and its folder is set back. The
//     record covers all events of the round, but some of them are not in the counts.

// askRedisOnce claims the id before the first fact is folded, so that it is known which
// replayed events Redis has. It waits for at most Config.AskTimeout. Replayed events that
// are folded before Redis answers are kept in separate rows.
func (c *Counter) askRedisOnce() {
	select {
	case <-c.asked:
		return
	default:
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.cfg.AskTimeout)
	defer cancel()
	if c.publishing.TryLock() {
		defer c.publishing.Unlock()
		r := &round{c: c, ctx: ctx}
		if err := r.askAndClaim(); err != nil {
			c.log.Warn("counting starts before Redis has answered", "error", err)
		}
		return
	}
	select {
	case <-c.asked:
	case <-ctx.Done():
	}
}

// answered records that Redis has answered, or has failed to, for the first time.
func (c *Counter) answered() { c.askedOnce.Do(func() { close(c.asked) }) }

func (r *round) askAndClaim() error {
	defer r.c.answered()
	ids, err := r.c.redis.Records(r.ctx)
	if err != nil {
		return err
	}
	return r.claim(ids)
}

// verdict says whether this process may write under the id of a record.
type verdict int

const (
	claimable verdict = iota // it may
	setBack                  // it needs a new id, since this folder was set back
	foreign                  // it needs a new id, since another folder writes under this one
	undecided                // not yet, since another folder may be writing under the id
)

// assess returns the verdict on a record that this process has not written.
func (p *publisher) assess(c *Counter, o registration, raw string) verdict {
	rec := rediscounts.ParseRecord(raw)
	switch {
	case rec == nil:
		// Redis never had the record, or has lost it. If this folder is a copy of one
		// that is in use, the process of the other folder will write it again.
		last := rediscounts.ParseRecord(o.Record)
		if p.claimed || last == nil || last.Instance == c.cfg.Instance || last.Instance == "" {
			return claimable
		}
		return p.watch(c, raw, claimable)
	case rec.Owner == c.run:
		return claimable
	case rec.Kept || rec.Removed:
		return foreign
	}
	limit, known := o.ended(rec.Owner)
	if rec.Owner == "" {
		limit, known = c.atOpen, true
	}
	same := rec.Instance == c.cfg.Instance || rec.Instance == ""
	if p.claimed {
		if known || same {
			return claimable // Redis went back to an older record
		}
		return foreign
	}
	if !known {
		limit = o.Acknowledged
	}
	alone := claimable
	if rec.Upto.Beyond(limit) {
		alone = setBack
	}
	if same {
		return alone
	}
	return p.watch(c, raw, alone)
}

// watch returns the verdict alone when a record of another folder has not changed for
// Config.WatchFor, and foreign when it has changed.
func (p *publisher) watch(c *Counter, raw string, alone verdict) verdict {
	switch now := c.cfg.Now(); {
	case !p.watching || now.Before(p.watchedAt):
		p.watching, p.watched, p.watchedAt = true, raw, now
		return undecided
	case p.watched != raw:
		return foreign
	case now.Sub(p.watchedAt) < c.cfg.WatchFor:
		return undecided
	}
	return alone
}

// errUndecided means that nothing can be sent yet.
var errUndecided = errors.New("another data folder has the registry id in Redis and may be in use; it is watched before the id is claimed")

// claim makes this process the owner of this folder's registry id, or of a new one.
func (r *round) claim(ids map[string]string) error {
	c := r.c
	c.adoptID(ids)
	for {
		c.mu.Lock()
		o := c.reg
		c.mu.Unlock()
		raw := ids[o.id()]
		p := &c.publisher
		v := p.assess(c, o, raw)
		upto := rediscounts.Sequences{}
		if rec := rediscounts.ParseRecord(raw); rec != nil && (v == setBack || v == undecided) {
			upto = rec.Upto
		}
		c.skipReplayed(upto)
		switch v {
		case claimable:
			return r.takeOwnership(o, raw)
		case undecided:
			return errUndecided
		}
		if err := c.newID(v); err != nil {
			return err
		}
	}
}

// adoptID finds the registry id of a folder that has lost its counts but not its journal, so
// that events that Redis has are not counted again.
func (c *Counter) adoptID(ids map[string]string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.reg.New {
		return
	}
	c.reg.New, c.unsaved = false, true
	var last *rediscounts.Record
	found := ""
	for id, raw := range ids {
		rec := rediscounts.ParseRecord(raw)
		if rec == nil || rec.Journal == "" || rec.Journal != c.journal() || id == c.reg.id() {
			continue
		}
		if last == nil || rec.Seen > last.Seen {
			found, last = id, rec
		}
	}
	if last != nil {
		c.reg.IDs = append(slices.Clone(c.reg.IDs), found)
	}
}

// skipReplayed records that Redis has the replayed events up to upto.
func (c *Counter) skipReplayed(upto rediscounts.Sequences) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.redisKnown = true
	next := maps.Clone(c.reg.Skip)
	if next == nil {
		next = rediscounts.Sequences{}
	}
	for stream, n := range upto {
		if n = min(n, c.replayed[stream]); n > c.atOpen[stream] && n > next[stream] {
			next[stream], c.reg.SkipEpoch = n, c.reg.epoch()
		}
	}
	c.reg.Skip = next
}

// newID takes a new registry id. What Redis has stays under the current one.
func (c *Counter) newID(why verdict) error {
	c.mu.Lock()
	old, oldEpoch := c.reg.id(), c.reg.epoch()
	c.mu.Unlock()
	claimed := c.publisher.claimed
	if early := why == setBack && c.replayedEarly; why == foreign && !claimed || early {
		// The replayed events are in the journal of the other folder, or in Redis.
		if err := c.mergeRuns(oldEpoch, func(run string) bool { return strings.HasPrefix(run, replayedRun) }); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if why == foreign && !claimed {
		c.reg.Skip, c.reg.SkipEpoch = maps.Clone(c.replayed), oldEpoch
	}
	c.reg.IDs = append(slices.Clone(c.reg.IDs), rediscounts.NewID())
	c.reg.Record, c.reg.Acknowledged = "", nil
	if err := c.saveRegistration(store.Sync); err != nil {
		return err
	}
	c.publisher.claimed, c.publisher.watching = false, false
	reason := "the data folder was restored from an older copy: Redis has counted events that it does not have"
	if why == foreign {
		reason = "another data folder uses the old id: one of the two is a copy of the other"
	}
	c.log.Warn("counters continue under a new registry id; the counts of the old one stay in Redis",
		"reason", reason, "id", c.reg.id(), "before", old)
	return nil
}

// takeOwnership writes this process into the record of the id and enters the runs. It then
// merges the pending rows of runs that are counted under another id.
func (r *round) takeOwnership(o registration, raw string) error {
	c, p := r.c, &r.c.publisher
	if err := c.save(); err != nil {
		return err
	}
	pending, err := c.pendingRuns()
	if err != nil {
		return err
	}
	runs := p.runsToEnter(pending, o)
	next := c.newRecord()
	if rec := rediscounts.ParseRecord(raw); rec != nil {
		next.Upto = rec.Upto
	}
	owners, err := c.redis.Claim(r.ctx, o.id(), raw, next, runs)
	if err != nil {
		return err
	}
	for i, run := range runs {
		isPending := i < len(pending)
		if owners[i] == o.id() {
			p.entered[run.ID] = run.ID == c.run || isPending
		} else if isPending {
			to := epoch(slices.Index(o.IDs, owners[i]) + 1) // elsewhere if it is none of this folder's
			if err := c.mergeRuns(to, func(pendingRun string) bool { return pendingRun[1:] == run.ID }); err != nil {
				return err
			}
		}
	}
	if exact := raw != "" && raw == o.Record; !exact {
		p.compareAll()
		if o.Record != "" && (raw == "" || p.claimed) {
			r.lost = 1
		}
	}
	p.claimed, p.wroteAt = true, c.cfg.Now()
	return c.acknowledge(next, nil)
}

// runsToEnter returns the runs of the pending rows, and then those of earlier processes of
// this folder, which Redis may have lost.
func (p *publisher) runsToEnter(pending []string, o registration) []rediscounts.Run {
	ids := slices.Clone(pending)
	for _, earlier := range o.Runs {
		if !slices.Contains(ids, earlier.Run) {
			ids = append(ids, earlier.Run)
		}
	}
	runs := make([]rediscounts.Run, len(ids))
	for i, id := range ids {
		runs[i] = rediscounts.Run{ID: id, Force: p.entered[id]}
	}
	return runs
}

// release removes the folder from the record, so that the process of a moved or copied folder
// can claim the id at once. After a kill it has to watch the record first.
func (c *Counter) release() {
	if c.redis == nil || !c.publishing.TryLock() {
		return
	}
	defer c.publishing.Unlock()
	p := &c.publisher
	if !p.claimed || !p.succeeded {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c.mu.Lock()
	r := &round{c: c, ctx: ctx, releasing: true, upto: c.reg.Acknowledged}
	c.mu.Unlock()
	if err := c.stopUses(*r); err != nil {
		c.log.Warn("last uses are not sent to Redis", "error", err)
	}
	if err := r.writeRecord(); err != nil {
		c.log.Warn("registry id is not released in Redis", "error", err)
	}
}
