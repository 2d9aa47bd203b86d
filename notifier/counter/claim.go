package counter

import (
	"context"
	_ "embed"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/tidings-dev/tidings/notifier/rediscounts"
)

// How a data folder claims its registry id.
//
// Only one process may write under a registry id: the one whose run the id's
// record in Redis names as owner. Each script call expects the record that the
// call before left and replaces it, so a record of another process, an older
// record and a missing one are all detected by the next call.
//
// A process claims an id by writing its run into the record. It may do so if the
// record was left by an earlier process of the same folder, and if another folder
// left it and the record does not change for Config.WatchFor: the folder was moved.
// It takes a new id instead if
//
//   - the record counts events that this folder does not have: the folder was
//     set back to an older copy;
//   - the record belongs to another folder and changes while it is watched: one
//     of the two is a copy of the other.
//
// What the old id has in Redis stays there and is counted. Locally it becomes the
// base rows of an older epoch. They are shown while Redis is unavailable, and sent
// again only if Redis has lost them.
//
// A folder whose counts were lost, but not its journal, adopts the registry id of
// the latest record with the journal's id. From there on it is a folder that was
// set back: events up to the record's Upto are known to be in Redis.
//
// A copy of a folder has a copy of its pending rows as well. So each claim enters
// the runs of all pending rows in Redis, with the id that has them. The first
// folder to enter a run gets it, and the other one drops its copy.
//
// A new id is durable before it is used, so a process that crashes before, in, or
// after a claim leaves a record that names a process of its folder, and runs
// entered under its own id: the next process claims again and gets the same runs.
//
// Three cases are not exact:
//
//   - A folder is copied while a process that has not reached Redis since its start
//     has it open, and the copy reaches Redis first. What the process has counted
//     since its start is then dropped, including what it counted after it was
//     copied.
//   - Redis is flushed between a copy taking a new id and entering its runs. What
//     was pending when the copy was made can count twice.
//   - A process is killed between two calls of a round, and its folder set back.
//     The record is of all events of the round, of which some are not in the
//     counts.

// askRedisOnce claims the id before the first fact is folded, so that it is known
// which replayed events Redis has. It waits for at most Config.AskTimeout; what is
// counted until Redis answers is kept in rows of its own.
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

func (r *round) askAndClaim() error {
	defer r.c.askedOnce.Do(func() { close(r.c.asked) })
	ids, err := r.c.redis.Records(r.ctx)
	if err != nil {
		return err
	}
	return r.claim(ids)
}

// verdict is what a record in Redis means for this process.
type verdict int

const (
	claimable verdict = iota // this process may write under the id
	setBack                  // the record is of this folder, which was set back
	foreign                  // another folder writes under the id
	undecided                // another folder may be writing under the id
)

// assess returns the verdict on a record that this process has not written.
func (p *publisher) assess(c *Counter, o registration, raw string) verdict {
	rec := rediscounts.ParseRecord(raw)
	switch {
	case rec == nil:
		// Redis never had the record, or has lost it. If this folder is a copy of
		// one that is in use, the other process writes the record again.
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

// watch returns a verdict on another folder's record once it has not changed for
// Config.WatchFor.
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
var errUndecided = errors.New("another data folder that may be in use has the registry id in Redis: it is watched before the id is claimed")

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

// adoptID finds the registry id of a folder whose counts were lost and whose journal
// was not, so that events that Redis has are not counted again.
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
		if rec != nil && rec.Journal != "" && rec.Journal == c.journal() && id != c.reg.id() && (last == nil || rec.Seen > last.Seen) {
			found, last = id, rec
		}
	}
	if last != nil {
		c.reg.IDs = append(slices.Clone(c.reg.IDs), found)
	}
}

// skipReplayed records that Redis has the replayed events up to upto already.
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

// newID leaves what is in Redis to the current id and takes a new one.
func (c *Counter) newID(why verdict) error {
	c.mu.Lock()
	old, oldEpoch := c.reg.id(), c.reg.epoch()
	c.mu.Unlock()
	claimed := c.publisher.claimed
	if early := why == setBack && c.replayedEarly; why == foreign && !claimed || early {
		// Another folder has the same events in its journal, or Redis has them.
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
	if err := c.saveRegistration(pebble.Sync); err != nil {
		return err
	}
	c.publisher.claimed, c.publisher.watching = false, false
	reason := "the data folder was set back to an older copy: Redis has events that it does not have"
	if why == foreign {
		reason = "another data folder uses the old id: one of the two is a copy of the other"
	}
	c.log.Warn("counters continue under a new registry id; the counts of the old one stay in Redis", "reason", reason, "id", c.reg.id(), "before", old)
	return nil
}

// takeOwnership writes this process into the record of the id and enters the runs,
// then drops pending rows that are counted under another id.
func (r *round) takeOwnership(o registration, raw string) error {
	c, p := r.c, &r.c.publisher
	if err := c.save(); err != nil {
		return err
	}
	pending, err := c.pendingRuns()
	if err != nil {
		return err
	}
	// All runs are entered again, since Redis may have lost those, too.
	runs := slices.Clone(pending)
	for _, p := range o.Runs {
		if !slices.Contains(runs, p.Run) {
			runs = append(runs, p.Run)
		}
	}
	next := c.newRecord()
	if rec := rediscounts.ParseRecord(raw); rec != nil {
		next.Upto = rec.Upto
	}
	entries := make([]rediscounts.Run, len(runs))
	for i, run := range runs {
		entries[i] = rediscounts.Run{ID: run, Force: p.entered[run]}
	}
	owners, err := c.redis.Claim(r.ctx, o.id(), raw, next, entries)
	if err != nil {
		return err
	}
	for i, run := range runs {
		if owners[i] == o.id() {
			p.entered[run] = run == c.run || i < len(pending)
			continue
		}
		if i >= len(pending) {
			continue
		}
		to := epoch(slices.Index(o.IDs, owners[i]) + 1) // elsewhere if it is none of this folder's
		if err := c.mergeRuns(to, func(pendingRun string) bool { return pendingRun[1:] == run }); err != nil {
			return err
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

// release lets a process on any copy of this folder claim the id at once. After a
// kill -9 another folder has to watch the record first.
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
	if err := r.writeRecord(); err != nil {
		c.log.Warn("registry id is not released in Redis", "error", err)
	}
}
