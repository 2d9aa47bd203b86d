package counter

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// DamagedError says that a key in Redis is not what it should be. The others
// are published all the same.
type DamagedError struct {
	Key    string
	Reason string
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("redis key %q %s: somebody else wrote it; delete it, and the numbers are sent again", e.Key, e.Reason)
}

// heartbeatInterval is how often a record in Redis changes at least. Another folder
// that watches it takes the id when it does not.
const heartbeatInterval = 10 * time.Second

// publisher is what a Counter knows of Redis.
type publisher struct {
	claimed    bool            // the id is this process's
	entered    map[string]bool // runs that were entered for this folder's ids
	watching   bool            // another folder's record, since watchedAt
	watched    string
	watchedAt  time.Time
	wroteAt    time.Time       // when the record was written last
	restored   map[string]bool // older ids that Redis has
	unanswered *unansweredCall
	comparison comparison
	succeeded  bool // the last round was

	childrenAt string // entry of the stream of children that was read last
	lossLogged time.Time

	clockAhead     time.Duration // of Redis' clock before ours
	clockCheckedAt time.Time     // when that was; zero: not known
}

func (p *publisher) init() {
	p.entered, p.childrenAt = map[string]bool{}, "0"
	p.comparison.all = true
}

// compareAll sends everything.
func (p *publisher) compareAll() { p.comparison, p.restored = comparison{all: true}, nil }

// Publish sends what changed to Redis, and everything that Redis turns out to
// have lost. It gives the number of rows that were sent; without Redis it does
// nothing. A *DamagedError in the result means that all other rows were sent.
func (c *Counter) Publish(ctx context.Context) (published int, err error) {
	if c.cfg.Redis == nil {
		return 0, nil
	}
	c.publishing.Lock()
	defer c.publishing.Unlock()
	r := &round{c: c, ctx: ctx, damaged: map[string]error{}}
	reason := ""
	for range 3 {
		// What was lost while we sent is sent again at once.
		if err = r.run(); !errors.Is(err, errLost) {
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
		c.log.Warn("Redis had lost numbers, which were sent again", "rows", r.rows)
	}
	return r.rows, err
}

// mayLog keeps what can happen in every round from filling the log.
func (c *Counter) mayLog(said *time.Time) bool {
	now := c.cfg.Now()
	if now.Sub(*said) < logEvery {
		return false
	}
	*said = now
	return true
}

// round is one Publish.
type round struct {
	c         *Counter
	ctx       context.Context
	rows      int
	lost      int              // 1 if Redis had lost numbers
	damaged   map[string]error // by key, so that one is reported once
	releasing bool
	snap      *pebble.Snapshot                      // what is sent,
	upto      sequences                             // with the events up to here
	report    func(repository, detail string) error // if set, differences are reported and nothing is written
}

func (r *round) run() error {
	c, p := r.c, &r.c.publisher
	if err := c.db.Space(); err != nil {
		return err
	}
	ids, err := r.ids()
	if err != nil {
		c.askedOnce.Do(func() { close(c.asked) })
		p.watching = false // nobody could give a sign of life
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
	own := c.reg.IDs
	c.mu.Unlock()
	c.status.checkOthers(ids, own, c.cfg.Now())

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

// look takes the numbers as they are. All that a round sends is of this moment,
// so that a record tells which events Redis has.
func (r *round) takeSnapshot() {
	c := r.c
	c.mu.Lock()
	defer c.mu.Unlock()
	r.snap, r.upto = c.db.NewSnapshot(), c.folded()
}

// ids reads the records of all ids.
func (r *round) ids() (map[string]string, error) {
	key := r.c.keys.ids()
	ids, err := r.c.cfg.Redis.HGetAll(r.ctx, key).Result()
	if err != nil {
		return nil, r.typeError(err, key)
	}
	return ids, nil
}

// damage turns the answer of a key of another type into an error that the
// operator can act on.
func (r *round) typeError(err error, key string) error {
	if strings.Contains(err.Error(), "WRONGTYPE") {
		return &DamagedError{Key: key, Reason: "is not a hash"}
	}
	return err
}

// changed sends what waits.
func (r *round) sendPending() error {
	w, snap := r.currentWriter(), r.snap
	var batch []*item
	err := scan(snap, []byte(pendingPrefix), func(key, val []byte) error {
		id, run, err := parseRow(string(key[len(pendingPrefix):]))
		if err != nil {
			return err
		}
		add, err := decodeRow(val)
		if err != nil {
			return fmt.Errorf("%w at %q", err, key)
		}
		if n := len(batch); n == 0 || batch[n-1].id != id {
			if n >= rowsInCall {
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

// touch writes the record alone.
func (r *round) writeRecord() error { return r.call(r.currentWriter(), nil, nil) }

// restore sends the numbers of older ids of this folder that Redis has lost.
// Whoever else has them may have more: a process that writes under the id takes
// it from us as soon as it looks.
func (r *round) restoreOlderIDs(ids map[string]string) error {
	c, p := r.c, &r.c.publisher
	if p.restored == nil {
		p.restored = map[string]bool{}
	}
	c.mu.Lock()
	older := c.reg.IDs[:len(c.reg.IDs)-1]
	c.mu.Unlock()
	for i, id := range older {
		rec := parseRecord(ids[id])
		if p.restored[id] || rec != nil && (!rec.Part || rec.Owner != "") {
			p.restored[id] = true
			continue
		}
		w := &writer{id: id, epoch: epoch(i + 1), expected: ids[id], next: func() record {
			return record{Call: random(), Host: c.cfg.Host, Seen: c.cfg.Now().Unix(), Part: true}
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
			if it == nil || len(batch) >= rowsInCall {
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
			w.next = func() record { r := last(); r.Part = false; return r }
			if err := r.call(w, nil, nil); err != nil {
				return err
			}
		}
		p.restored[id] = true
	}
	return nil
}
