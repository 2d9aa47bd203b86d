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
	"github.com/redis/go-redis/v9"
)

// meet asks Redis before the first fact is folded, so that events which Redis
// has already are known. It does not wait for long: what is counted meanwhile
// is kept apart until Redis answers.
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
			c.log.Warn("Redis was asked before counting, and did not say what it has", "err", err)
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
	ids, err := r.ids()
	if err != nil {
		return err
	}
	return r.claim(ids)
}

type verdict int

const (
	claimable verdict = iota
	setBack
	foreign
	undecided
)

// assess says whose a record is, when this process has not written it.
func (p *publisher) assess(c *Counter, o registration, raw string) verdict {
	rec := parseRecord(raw)
	switch {
	case rec == nil:
		// Redis has lost it, if it ever had it. Should this be a copy of a folder
		// whose process runs, then that one sends it again.
		last := parseRecord(o.Record)
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
			return claimable // and older than what was there
		}
		return foreign
	}
	if !known {
		limit = o.Acknowledged
	}
	alone := claimable
	if rec.Upto.beyond(limit) {
		alone = setBack
	}
	if same {
		return alone
	}
	return p.watch(c, raw, alone)
}

// watch gives a verdict on a record when it has not changed for a while.
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
var errUndecided = errors.New("these numbers are in Redis under the name of another data folder, which may be running: it is watched before they are taken over")

// errLost means that Redis is not as the last call left it.
var errLost = errors.New("redis has lost numbers")

// claim makes this process the owner of this folder's id, or of a new one.
func (r *round) claim(ids map[string]string) error {
	c := r.c
	c.adoptID(ids)
	for {
		c.mu.Lock()
		o := c.reg
		c.mu.Unlock()
		raw := ids[o.id()]
		p := &c.publisher
		verdict := p.assess(c, o, raw)
		upto := sequences{}
		if rec := parseRecord(raw); rec != nil && (verdict == setBack || verdict == undecided) {
			upto = rec.Upto
		}
		c.skipReplayed(upto)
		switch verdict {
		case claimable:
			return r.takeOwnership(o, raw)
		case undecided:
			return errUndecided
		}
		if err := c.newID(verdict); err != nil {
			return err
		}
	}
}

// adopt takes up the id of a folder whose numbers were lost and whose journal was
// not, so that events which Redis has are not counted again.
func (c *Counter) adoptID(ids map[string]string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.reg.New {
		return
	}
	c.reg.New, c.unsaved = false, true
	var last *record
	found := ""
	for id, raw := range ids {
		rec := parseRecord(raw)
		if rec != nil && rec.Journal != "" && rec.Journal == c.journal() && id != c.reg.id() && (last == nil || rec.Seen > last.Seen) {
			found, last = id, rec
		}
	}
	if last != nil {
		c.reg.IDs = append(slices.Clone(c.reg.IDs), found)
	}
}

// skip notes that replayed events up to here are in Redis already.
func (c *Counter) skipReplayed(upto sequences) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.redisKnown = true
	next := maps.Clone(c.reg.Skip)
	if next == nil {
		next = sequences{}
	}
	for stream, n := range upto {
		if n = min(n, c.replayed[stream]); n > c.atOpen[stream] && n > next[stream] {
			next[stream], c.reg.SkipEpoch = n, c.reg.epoch()
		}
	}
	c.reg.Skip = next
}

// newID leaves what is in Redis to the old id.
func (c *Counter) newID(why verdict) error {
	c.mu.Lock()
	old, oldEpoch := c.reg.id(), c.reg.epoch()
	c.mu.Unlock()
	claimed := c.publisher.claimed
	if early := why == setBack && c.replayedEarly; why == foreign && !claimed || early {
		// The other folder has the same events in its journal, or Redis has them.
		if err := c.mergeRuns(oldEpoch, func(run string) bool { return strings.HasPrefix(run, replayedRun) }); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if why == foreign && !claimed {
		c.reg.Skip, c.reg.SkipEpoch = maps.Clone(c.replayed), oldEpoch
	}
	c.reg.IDs = append(slices.Clone(c.reg.IDs), random())
	c.reg.Record, c.reg.Acknowledged = "", nil
	if err := c.saveRegistration(pebble.Sync); err != nil {
		return err
	}
	c.publisher.claimed, c.publisher.watching = false, false
	reason := "the data folder was set back to an older copy: Redis counts events that it does not know"
	if why == foreign {
		reason = "another data folder writes under the old one: one of the two is a copy of the other"
	}
	c.log.Warn("the counters go on under a new id; what they have in Redis stays", "reason", reason, "id", c.reg.id(), "before", old)
	return nil
}

//go:embed claim.lua
var claimSource string

var claimScript = redis.NewScript(claimSource)

// take enters this process as the owner of the id, and drops what waits here
// and is counted under another id.
func (r *round) takeOwnership(o registration, raw string) error {
	c, p := r.c, &r.c.publisher
	if err := c.save(); err != nil {
		return err
	}
	waiting, err := c.pendingRuns()
	if err != nil {
		return err
	}
	// All runs are entered again, for Redis may have lost that too.
	runs := slices.Clone(waiting)
	for _, p := range o.Runs {
		if !slices.Contains(runs, p.Run) {
			runs = append(runs, p.Run)
		}
	}
	next := c.newRecord()
	if rec := parseRecord(raw); rec != nil {
		next.Upto = rec.Upto
	}
	args := []any{o.id(), raw, next.encode()}
	for _, run := range runs {
		force := "0"
		if p.entered[run] {
			force = "1"
		}
		args = append(args, run, force)
	}
	reply, err := claimScript.Run(r.ctx, c.cfg.Redis, []string{c.keys.ids(), c.keys.runs()}, args...).StringSlice()
	if err != nil {
		return r.typeError(err, c.keys.ids())
	}
	if len(reply) != 1+len(runs) || reply[0] != "ok" {
		return errLost // somebody was faster; ask again
	}
	for i, run := range runs {
		if reply[1+i] == o.id() {
			p.entered[run] = run == c.run || i < len(waiting)
			continue
		}
		if i >= len(waiting) {
			continue
		}
		to := epoch(slices.Index(o.IDs, reply[1+i]) + 1) // elsewhere if it is none of this folder's
		if err := c.mergeRuns(to, func(waits string) bool { return waits[1:] == run }); err != nil {
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

// release lets any copy of this folder take the id over at once. A process that
// is killed can't, and then another folder watches for a while.
func (c *Counter) release() {
	if c.cfg.Redis == nil || !c.publishing.TryLock() {
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
		c.log.Warn("Redis was not told that this registry ends", "err", err)
	}
}
