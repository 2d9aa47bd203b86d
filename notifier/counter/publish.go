package counter

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/rediscounts"
)

// A round of publishing:
//
//  1. Read the records of all registry ids. If this id's record is not the one last
//     acknowledged, either the last call was executed without an answer (then its
//     rows are applied, see confirmUnanswered), or Redis has lost or restored
//     something or another process claimed the id: claim it (claim.go), and compare
//     everything.
//  2. Send the rows with pending counts, in calls of at most rowsInCall rows.
//     Each call sets the fields to absolute values and replaces the record in one
//     script, which does nothing if the record is not the one left by the call
//     before. What was sent is then applied in one batch (pending.go).
//  3. Compare some of the other rows, or all after a loss, and send those that
//     differ (compare.go).
//  4. Write the record if that was not done for heartbeatInterval, restore older
//     ids that Redis has lost, and exchange indexes and tags with the other
//     registries (share.go).
//
// A script that Redis stops halfway has set some fields and not the record; the next
// call sets them again, to the same or newer values. A process that crashes after a
// call and before its batch finds another record than it has stored and compares
// everything. If Redis loses data between two calls, the second finds another record
// (errLost) and the round starts over.

// heartbeatInterval is how often a record in Redis changes at least. If it does not,
// another folder that watches it may claim the id.
const heartbeatInterval = 10 * time.Second

// publisher is what a Counter knows about Redis.
type publisher struct {
	claimed    bool            // this process owns the id
	entered    map[string]bool // runs entered under this folder's ids; true: enter again if Redis has lost it
	watching   bool            // another folder's record is watched, since watchedAt
	watched    string
	watchedAt  time.Time
	wroteAt    time.Time       // when the record was last written
	restored   map[string]bool // older ids whose counts Redis has
	unanswered *unansweredCall
	comparison comparison
	succeeded  bool // the last round did

	streamPosition string    // last entry of the stream that was read
	lossLogged     time.Time // when a loss was last logged

	clockAhead     time.Duration // of Redis' clock compared to ours
	clockCheckedAt time.Time     // zero: clockAhead is unknown
}

func (p *publisher) init() {
	p.entered, p.streamPosition = map[string]bool{}, rediscounts.StreamStart
	p.comparison.all = true
}

// compareAll has the next round compare everything.
func (p *publisher) compareAll() { p.comparison, p.restored = comparison{all: true}, nil }

// Publish does one round: it sends changed counts to Redis, and everything that
// Redis has lost. It returns the number of rows sent; without Redis it does nothing.
// A *rediscounts.DamagedError means that all other rows were sent.
func (c *Counter) Publish(ctx context.Context) (published int, err error) {
	if c.redis == nil {
		return 0, nil
	}
	c.publishing.Lock()
	defer c.publishing.Unlock()
	r := &round{c: c, ctx: ctx, damaged: map[string]error{}}
	reason := ""
	for range 3 {
		// If Redis lost something in the meantime, it is sent again at once.
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

// mayLog limits messages that could come with every round. last is the time of the
// last one.
func (c *Counter) mayLog(last *time.Time) bool {
	now := c.cfg.Now()
	if now.Sub(*last) < logEvery {
		return false
	}
	*last = now
	return true
}

// round is one call of Publish or CompareRedis.
type round struct {
	c         *Counter
	ctx       context.Context
	rows      int
	lost      int              // 1 if Redis had lost counts
	damaged   map[string]error // by key, so that each is reported once
	releasing bool
	snap      *pebble.Snapshot                      // what is sent,
	upto      rediscounts.Sequences                 // which has the events up to here
	report    func(repository, detail string) error // if set, differences are reported and nothing is written
}

func (r *round) run() error {
	c, p := r.c, &r.c.publisher
	if err := c.db.Space(); err != nil {
		return err
	}
	ids, err := c.redis.Records(r.ctx)
	if err != nil {
		c.askedOnce.Do(func() { close(c.asked) })
		p.watching = false // no process could have written its record
		return err
	}
	if err := r.confirmUnanswered(ids); err != nil {
		return err
	}
	c.mu.Lock()
	known := p.claimed && ids[c.reg.id()] == c.reg.Record
	c.mu.Unlock()
	if !known {
		err := r.claim(ids)
		c.askedOnce.Do(func() { close(c.asked) })
		if err != nil {
			return err
		}
	}
	c.mu.Lock()
	ours := c.reg.IDs
	c.mu.Unlock()
	c.status.checkOthers(ids, ours, c.cfg.Now())

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
	var all []error
	for _, err := range r.damaged {
		all = append(all, err)
	}
	return errors.Join(all...)
}

// takeSnapshot fixes the counts that a round sends, and the events in them, which
// its record names.
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
	err := store.Scan(snap, []byte(pendingPrefix), func(key, val []byte) error {
		id, run, err := parseRow(string(key[len(pendingPrefix):]))
		if err != nil {
			return err
		}
		add, err := counts.DecodeRow(val)
		if err != nil {
			return fmt.Errorf("%w at %q", err, key)
		}
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

// writeRecord writes only the record.
func (r *round) writeRecord() error { return r.call(r.currentWriter(), nil, nil) }

// restoreOlderIDs sends the counts of this folder's older ids that Redis has lost.
// Another folder may have more of them: a process that writes under such an id claims
// it in its next round and sends its own.
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
		if p.restored[id] || rec != nil && (!rec.Part || rec.Owner != "") {
			p.restored[id] = true
			continue
		}
		w := &writer{id: id, epoch: epoch(i + 1), expected: ids[id], next: func() rediscounts.Record {
			return rediscounts.Record{Call: rediscounts.NewID(), Host: c.cfg.Host, Seen: c.cfg.Now().Unix(), Part: true}
		}}
		rows, err := newRows(c.db, w.epoch, false, "")
		if err != nil {
			return err
		}
		var batch []*item
		for {
			it, err := rows.next(c.cfg.Now())
			if err != nil {
				return errors.Join(err, rows.close())
			}
			if it == nil || len(batch) >= rediscounts.RowsInCall {
				if err := r.send(w, batch, false); err != nil {
					return errors.Join(err, rows.close())
				}
				batch = nil
			}
			if it == nil {
				break
			}
			batch = append(batch, it)
		}
		if err := rows.close(); err != nil {
			return err
		}
		if w.calls > 0 {
			last := w.next
			w.next = func() rediscounts.Record { r := last(); r.Part = false; return r }
			if err := r.call(w, nil, nil); err != nil {
				return err
			}
		}
		p.restored[id] = true
	}
	return nil
}
