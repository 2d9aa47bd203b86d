package counter

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/redis/go-redis/v9"

	"github.com/tidings-dev/tidings/internal/store"
)

// A folder's numbers are in Redis under an id, and only one process may write
// under it: the one whose run (a random text) the id's record in Redis names as
// its owner. Each call of a script expects the record as the call before left
// it, so another's record, an older one or none shows at once.
//
// A process takes an id over by putting its run into the record. It may when
// the record was left by an earlier process of the same folder. It may not when
//
//   - the record counts events that this folder never heard of: the folder was
//     set back to an older copy;
//   - the record is of another folder and changes while it is watched: one of
//     the two is a copy of the other.
//
// Then it takes a new id. What the old id has in Redis stays, and is counted
// there; here it becomes a number of an older epoch, which is shown while Redis
// is away and sent only if Redis has lost it.
//
// What was counted and is not in Redis yet is kept apart from what is, under
// the run of the process that counted it. A copy of the folder has a copy of
// that too, so each run is entered in Redis with the id that took it: the
// first takes it, and the other folder drops it.
//
// Three cases are not exact. A copy is made of a process that has not reached
// Redis since it started and is still running when the copy reaches Redis first:
// what both counted since then is dropped by the second. Redis is flushed between
// a copy finding out that it is one and entering its runs: what was on its way
// when the copy was made can count twice. A process is killed between the calls
// of a round, and its folder set back: the record is of all the events of the
// round, of which some are not in the numbers.

// positions are numbers of events, by stream.
type positions map[uint8]uint64

func (p positions) beyond(o positions) bool {
	for stream, n := range p {
		if n > o[stream] {
			return true
		}
	}
	return false
}

// own is who this folder is to Redis.
type registration struct {
	New          bool      `json:"new,omitempty"`    // Redis was not asked yet whether it knows the folder's journal
	IDs          []string  `json:"ids"`              // of epochs 1, 2, …; the last one is written to
	Runs         []process `json:"runs,omitempty"`   // the last processes of this folder, this one behind the others
	Record       string    `json:"record,omitempty"` // of the id, as Redis acknowledged it last
	Acknowledged positions `json:"proven,omitempty"` // events that Redis had then
	Skip         positions `json:"skip,omitempty"`   // events up to here are in Redis under an older id,
	SkipEpoch    epoch     `json:"skipTo,omitempty"` // the one of this epoch
}

// process is one that had this folder.
type process struct {
	Run  string    `json:"run"`
	From positions `json:"from,omitempty"` // events that were folded when it began
}

const maxRuns = 32

// ended gives what was folded when a process ended; false for one that is not
// of this folder.
func (o registration) ended(run string) (positions, bool) {
	for i, p := range o.Runs {
		if p.Run == run && i+1 < len(o.Runs) {
			return o.Runs[i+1].From, true
		}
	}
	return nil, false
}

func (o registration) epoch() epoch { return epoch(len(o.IDs)) }

func (o registration) id() string { return o.IDs[len(o.IDs)-1] }

// record is what Redis knows of an id, as JSON.
type record struct {
	Owner    string    `json:"owner,omitempty"` // run of the process that writes; empty: nobody does
	Call     string    `json:"call"`            // another one in each call
	Journal  string    `json:"journal,omitempty"`
	Instance string    `json:"instance,omitempty"`
	Host     string    `json:"host,omitempty"`
	Seen     int64     `json:"seen"`              // unix seconds, by the owner's clock
	Upto     positions `json:"upto,omitempty"`    // no event after these is in the numbers
	Part     bool      `json:"part,omitempty"`    // an older id that is still being sent
	Kept     bool      `json:"kept,omitempty"`    // its registry is gone, its numbers count
	Removed  bool      `json:"removed,omitempty"` // its registry is gone, its numbers too
}

func (r record) encode() string {
	b, _ := json.Marshal(r) // which can't fail
	return string(b)
}

// parseRecord gives nil for what is not there. A record that can't be read is
// one that nobody owns.
func parseRecord(raw string) *record {
	if raw == "" {
		return nil
	}
	var r record
	if json.Unmarshal([]byte(raw), &r) != nil {
		return &record{}
	}
	return &r
}

func (c *Counter) loadRegistration() error {
	raw, err := store.Read(c.db, []byte(registrationKey))
	if err == nil {
		if err = json.Unmarshal(raw, &c.reg); err == nil && len(c.reg.IDs) == 0 {
			err = errors.New("it has no id")
		}
		if err != nil {
			return fmt.Errorf("damaged value at %q: %w", registrationKey, err)
		}
	} else if errors.Is(err, pebble.ErrNotFound) {
		c.reg, err = registration{New: true, IDs: []string{random()}}, nil
	} else {
		return err
	}
	c.atOpen, c.replayed = c.positions(), positions{}
	if c.cfg.LastEvent != nil {
		for stream := range uint8(8) {
			c.replayed[stream] = c.cfg.LastEvent(stream)
		}
	}
	c.unsaved = true // until the first write that is needed: the disk may be full
	if c.cfg.Redis == nil {
		// What Redis has is not kept track of any more.
		c.reg.Record = ""
		close(c.asked)
		return nil
	}
	c.run = random()
	c.reg.Runs = append(c.reg.Runs, process{c.run, c.atOpen})
	c.reg.Runs = c.reg.Runs[max(0, len(c.reg.Runs)-maxRuns):]
	c.publisher.init()
	return nil
}

func random() string { return strings.ToLower(rand.Text()[:12]) }

// saveRegistration writes it. The caller has c.mu, or nobody else has the Counter.
func (c *Counter) saveRegistration(options *pebble.WriteOptions) error {
	b := c.db.NewBatch()
	if err := c.putRegistration(b); err != nil {
		return err
	}
	if err := c.db.Commit(b, options); err != nil {
		return err
	}
	c.unsaved = false
	return nil
}

// save writes it if that was not done yet.
func (c *Counter) save() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.unsaved {
		return nil
	}
	return c.saveRegistration(pebble.Sync)
}

func (c *Counter) putRegistration(b *pebble.Batch) error {
	raw, err := json.Marshal(c.reg)
	if err != nil {
		return err
	}
	return b.Set([]byte(registrationKey), raw, nil)
}

// Rows that wait end in how a fact came and in the run that counted it.
const (
	liveRun     = "f" // it happened while the process ran
	replayedRun = "r" // it was in the journal before
)

// mergeRuns moves what waits under some runs to the numbers of an epoch.
func (c *Counter) mergeRuns(to epoch, runs func(run string) bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.db.NewIndexedBatch()
	now := c.cfg.Now()
	n := 0
	flush := func() error {
		defer func() { b, n = c.db.NewIndexedBatch(), 0 }()
		return c.db.Commit(b, pebble.NoSync)
	}
	err := scan(c.db, []byte(pendingPrefix), func(key, val []byte) error {
		id, run, err := parseRow(string(key[len(pendingPrefix):]))
		if err != nil {
			return err
		}
		if !runs(run) {
			return nil
		}
		add, err := decodeRow(val)
		if err != nil {
			return fmt.Errorf("%w at %q", err, key)
		}
		base, _, err := readRow(b, baseKey(id, to))
		if err != nil {
			return err
		}
		if base = base.with(add, now); base.counted() {
			err = b.Set(baseKey(id, to), base.encode(), nil)
		}
		if err = errors.Join(err, b.Delete(key, nil)); err != nil {
			return err
		}
		if n++; n < batchRows {
			return nil
		}
		return flush()
	})
	return errors.Join(err, flush())
}

// batchRows bounds how long others wait for one of our batches.
const batchRows = 1000

// waiting lists the runs under which something waits.
func (c *Counter) pendingRuns() ([]string, error) {
	found := map[string]bool{}
	err := scan(c.db, []byte(pendingPrefix), func(key, _ []byte) error {
		_, run, err := parseRow(string(key[len(pendingPrefix):]))
		if run != "" {
			found[run[1:]] = true
		}
		return err
	})
	return slices.Sorted(maps.Keys(found)), err
}

// mergeAllPending makes what waits for Redis numbers like the others when there is
// no Redis any more.
func (c *Counter) mergeAllPending() error {
	c.mu.Lock()
	done := c.merged
	c.mu.Unlock()
	if done {
		return nil
	}
	if err := c.mergeRuns(c.reg.epoch(), func(string) bool { return true }); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.merged = true
	return nil
}

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
		upto := positions{}
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
func (c *Counter) skipReplayed(upto positions) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.redisKnown = true
	next := maps.Clone(c.reg.Skip)
	if next == nil {
		next = positions{}
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

func (c *Counter) newRecord() record {
	return record{
		Owner: c.run, Call: random(), Journal: c.journal(), Instance: c.cfg.Instance, Host: c.cfg.Host, Seen: c.cfg.Now().Unix(),
	}
}

// acknowledged keeps a record that Redis has, with what else was settled by
// the call.
func (c *Counter) acknowledge(rec record, also func(*pebble.Batch) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	raw := rec.encode()
	b := c.db.NewIndexedBatch()
	c.reg.Record, c.reg.Acknowledged = raw, rec.Upto
	if err := c.putRegistration(b); err != nil {
		return err
	}
	if also != nil {
		if err := also(b); err != nil {
			return err
		}
	}
	if err := c.db.Commit(b, pebble.NoSync); err != nil {
		return err
	}
	c.status.wrote(c.reg.id(), raw)
	return nil
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
