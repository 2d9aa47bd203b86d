package counter

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/rediscounts"
)

// A round of publishing:
//
//  1. Read the records of all registry ids. If the record of this id is not the one that
//     was last acknowledged, there are two cases. The last call was executed, but its
//     response was lost: then its rows are applied (confirmUnanswered). Or Redis has lost
//     or restored something, or another process has claimed the id: then this process
//     claims it (claim.go) and compares everything.
//  2. Send the rows with pending counts, at most rediscounts.RowsInCall in a call. A call
//     sets fields to absolute values and replaces the record, in one script that changes
//     nothing if Redis does not have the record of the call before. What was sent is then
//     applied in one batch (pending.go).
//  3. Compare some of the other rows, or all of them after a loss, and send those that
//     differ (compare.go).
//  4. Write the record if it is older than heartbeatInterval, restore older ids that Redis
//     has lost, and exchange index entries and changes of tags with the other registries
//     (share.go).
//  5. Send the last uses that have changed, or all of them after a loss (shareuses.go).
//
// A script that Redis stops halfway has set some fields but not the record. The next call
// sets them again, to the same or newer values. A process that crashes between a call and
// its batch finds another record in Redis than the stored one, and compares everything. If
// Redis loses data between two calls, the second one returns rediscounts.ErrChanged and the
// round starts again.

// heartbeatInterval is the maximum time between two changes of a record. Another folder may
// claim the id of a record that does not change for longer.
const heartbeatInterval = 10 * time.Second

// publisher is the state of publishing between rounds.
type publisher struct {
	claimed    bool            // this process owns the id
	entered    map[string]bool // runs entered under this folder's ids; true: enter them again if Redis has lost them
	watching   bool            // the record watched, of another folder, is watched since watchedAt
	watched    string
	watchedAt  time.Time
	wroteAt    time.Time       // when the record was last written
	restored   map[string]bool // older ids that are known to be in Redis
	unanswered *unansweredCall
	comparison comparison
	uses       usesPublisher
	succeeded  bool // the last round succeeded

	streamPosition string    // last entry of the stream that was read
	lossLogged     time.Time // when a loss was last logged

	clockAhead     time.Duration // of Redis' clock compared to ours
	clockCheckedAt time.Time     // zero: clockAhead is unknown
}

func (p *publisher) init() {
	p.entered, p.streamPosition = map[string]bool{}, rediscounts.StreamStart
	p.comparison.all, p.uses.all = true, true
}

// compareAll makes the next round compare everything.
func (p *publisher) compareAll() { p.comparison, p.restored = comparison{all: true}, nil }

// Publish makes one round: it sends changed counts to Redis, and what Redis has lost. It
// returns the number of rows sent. Without Redis it does nothing. After a
// *rediscounts.DamagedError all other rows were sent.
func (c *Counter) Publish(ctx context.Context) (published int, err error) {
	if c.redis == nil {
		return 0, nil
	}
	c.publishing.Lock()
	defer c.publishing.Unlock()
	r := &round{c: c, ctx: ctx, damaged: map[string]error{}}
	reason := ""
	for range 3 {
		// What Redis has lost during a round is sent again at once.
		if err = r.run(); !errors.Is(err, rediscounts.ErrChanged) {
			break
		}
	}
	if err != nil {
		reason = reasonOf(err)
		err = fmt.Errorf("publish counters: %w", err)
	}
	c.publisher.succeeded = err == nil
	c.cfg.Metrics.published(r.rows, r.lost, err != nil, c.cfg.Now())
	c.status.finished(c.cfg.Now(), err, reason)
	if r.lost > 0 && c.mayLog(&c.publisher.lossLogged) {
		c.log.Warn("Redis had lost counts; they were sent again", "rows", r.rows)
	}
	return r.rows, err
}

// mayLog limits messages that every round could log. last is the time of the last one.
func (c *Counter) mayLog(last *time.Time) bool {
	now := c.cfg.Now()
	if now.Sub(*last) < logEvery {
		return false
	}
	*last = now
	return true
}

// round is a call of Publish or CompareRedis.
type round struct {
	c         *Counter
	ctx       context.Context
	rows      int
	lost      int              // 1 if Redis had lost counts
	damaged   map[string]error // by key, so that each is reported once
	releasing bool
	snap      store.Snapshot                        // the rows that are sent
	upto      rediscounts.Sequences                 // the last events in snap
	report    func(repository, detail string) error // not nil: differences are reported and nothing is written
}

func (r *round) run() error {
	c, p := r.c, &r.c.publisher
	ids, err := r.begin()
	if err != nil {
		return err
	}
	r.takeSnapshot()
	defer r.snap.Close()
	if err := r.sendPending(); err != nil {
		return err
	}
	if err := r.compare(); err != nil {
		return err
	}
	if since := c.cfg.Now().Sub(p.wroteAt); since >= heartbeatInterval || since < 0 {
		if err := r.writeRecord(); err != nil {
			return err
		}
	}
	if err := r.restoreOlderIDs(ids); err != nil {
		return err
	}
	if err := r.share(); err != nil {
		return err
	}
	if err := r.shareUses(ids); err != nil {
		return fmt.Errorf("send last uses: %w", err)
	}
	return errors.Join(slices.Collect(maps.Values(r.damaged))...)
}

// begin returns the records of all ids, after this process has become the owner of its own.
func (r *round) begin() (map[string]string, error) {
	c, p := r.c, &r.c.publisher
	if err := c.db.Space(); err != nil {
		return nil, err
	}
	ids, err := c.redis.Records(r.ctx)
	if err != nil {
		c.answered()
		p.watching = false // another process could not write its record either
		return nil, err
	}
	if err := r.confirmUnanswered(ids); err != nil {
		return nil, err
	}
	c.mu.Lock()
	owner := p.claimed && ids[c.reg.id()] == c.reg.Record
	c.mu.Unlock()
	if !owner {
		err := r.claim(ids)
		c.answered()
		if err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	ours := c.reg.IDs
	c.mu.Unlock()
	c.status.checkOthers(ids, ours, c.cfg.Now())
	return ids, nil
}

// takeSnapshot fixes the rows that a round sends, and the events that its record names.
func (r *round) takeSnapshot() {
	c := r.c
	c.mu.Lock()
	defer c.mu.Unlock()
	r.snap, r.upto = c.db.NewSnapshot(), c.folded()
}

// sendPending sends the rows that have pending counts.
func (r *round) sendPending() error {
	w, snap := r.currentWriter(), r.snap
	var batch []*item
	err := scanRows(snap, pendingPrefix, []byte(pendingPrefix), func(id counts.ID, run string, add counts.Row) error {
		if n := len(batch); n == 0 || batch[n-1].id != id {
			if n >= rediscounts.RowsInCall {
				if err := r.send(w, batch, false); err != nil {
					return err
				}
				batch = nil
			}
			base, _, err := readRow(snap, baseKey(id, w.epoch))
			if err != nil {
				return err
			}
			batch = append(batch, &item{id: id, base: base, sum: base})
		}
		batch[len(batch)-1].add(run, add, r.c.cfg.Now())
		return nil
	})
	if err != nil {
		return err
	}
	return r.send(w, batch, false)
}

// writeRecord writes the record alone.
func (r *round) writeRecord() error { return r.call(r.currentWriter(), nil, nil) }

// restoreOlderIDs sends the counts of older ids of this folder that Redis has lost. Another
// folder may have more recent counts of such an id: its process claims the id in its next
// round and sends them.
func (r *round) restoreOlderIDs(ids map[string]string) error {
	c, p := r.c, &r.c.publisher
	if p.restored == nil {
		p.restored = map[string]bool{}
	}
	c.mu.Lock()
	older := c.reg.IDs[:len(c.reg.IDs)-1]
	c.mu.Unlock()
	for i, id := range older {
		rec := rediscounts.ParseRecord(ids[id])
		if lost := rec == nil || rec.Part && rec.Owner == ""; lost && !p.restored[id] {
			if err := r.restoreID(id, epoch(i+1), ids[id]); err != nil {
				return err
			}
		}
		p.restored[id] = true
	}
	return nil
}

// restoreID sends the counts of an older id. Its record is marked as partial until all of
// them are sent.
func (r *round) restoreID(id string, e epoch, raw string) error {
	c := r.c
	part := true
	w := &writer{id: id, epoch: e, expected: raw, next: func() rediscounts.Record {
		return rediscounts.Record{Call: rediscounts.NewID(), Host: c.cfg.Host, Seen: c.cfg.Now().Unix(), Part: part}
	}}
	if err := r.sendEpoch(w); err != nil || w.calls == 0 {
		return err
	}
	part = false
	return r.call(w, nil, nil)
}

// sendEpoch sends all base rows of an epoch.
func (r *round) sendEpoch(w *writer) (err error) {
	rows, err := newRows(r.c.db, w.epoch, false, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.close()) }()
	var batch []*item
	for {
		it, err := rows.next(r.c.cfg.Now())
		if err != nil {
			return err
		}
		if it == nil || len(batch) >= rediscounts.RowsInCall {
			if err := r.send(w, batch, false); err != nil {
				return err
			}
			batch = nil
		}
		if it == nil {
			return nil
		}
		batch = append(batch, it)
	}
}
