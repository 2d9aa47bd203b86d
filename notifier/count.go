package notifier

import (
	"context"
	"errors"

	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/inbound"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/pushrow"
	"github.com/tidings-dev/tidings/notifier/recent"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/state"
)

// countedStreams are the streams that the counter reads.
var countedStreams = []journal.Stream{journal.Pushes, journal.Pulls}

// Limits of what is counted in one transaction.
const (
	countEvents = 5000
	countBytes  = 4 << 20
)

// runCounter counts the events of a stream until ctx ends.
func (n *Notifier) runCounter(ctx context.Context, s journal.Stream) error {
	retry := n.newBackoff(sink.Counters)
	for ctx.Err() == nil {
		if err := n.stepCounter(ctx, s); err != nil {
			retry.sleep(ctx, err)
			continue
		}
		retry.reset()
	}
	return nil
}

// stepCounter counts the next events of a stream.
func (n *Notifier) stepCounter(ctx context.Context, s journal.Stream) error {
	after := n.counter.Latest(uint8(s))
	last := n.journal.Status(s).Last
	entries, err := n.journal.Read(s, after, countEvents, countBytes)
	if err != nil {
		return err
	}
	if missing(after, last, entries) {
		if err := n.counter.UsesLost(); err != nil {
			return err
		}
	}
	if len(entries) == 0 && last > after {
		// The journal was restored from an older copy and skips these numbers.
		return n.counter.Fold(n.journal.ID(), uint8(s), last, nil, nil)
	}
	if len(entries) == 0 {
		n.journal.Wait(ctx, s, after)
		return nil
	}
	if err := n.space(); err != nil {
		return err
	}
	c := counting{n: n, stream: s, notifications: n.inbound.NewBatch(), private: privateBatch{images: n.private}}
	for _, entry := range entries {
		if err := c.add(entry); err != nil {
			return err
		}
	}
	last = entries[len(entries)-1].Seq
	if err := c.commit(last); err != nil {
		return err
	}
	if s == journal.Pushes {
		n.inbound.Counted(last)
		n.progress.Send()
	}
	if err := n.journal.SetCursorLazily(s, sink.Counters, last); err != nil {
		return err
	}
	n.lingerAfter(ctx, len(entries), countEvents)
	return nil
}

// missing reports whether the journal has not the event after the given one, but later ones.
func missing(after, last uint64, entries []journal.Entry) bool {
	if len(entries) == 0 {
		return last > after
	}
	return entries[0].Seq > after+1
}

// counting is a transaction of the counter: facts for the numbers, and the rows that
// are committed with them.
type counting struct {
	n             *Notifier
	stream        journal.Stream
	facts         []counts.Fact
	rows          []pushrow.Push
	notifications *inbound.Batch
	private       privateBatch
}

// add takes an event in. One that can't be read is given up.
func (c *counting) add(entry journal.Entry) error {
	e, err := c.read(entry)
	if errors.Is(err, event.ErrNewer) {
		return err
	}
	if err != nil {
		if err := c.n.dead.Add(c.stream, sink.Counters, entry.Seq, err.Error(), entry.Payload); err != nil {
			return err
		}
		c.n.metrics.Dead(sink.Counters, 1)
		return c.n.counter.UsesLost()
	}
	if e.Inbound != nil {
		repeated, err := c.notifications.Repeated(e.Seq, e.Time, e.Inbound)
		if repeated || err != nil {
			return err
		}
	}
	if e.Plan.Counted != nil {
		fact := *e.Plan.Counted
		if fact.Repository, err = c.private.countedName(e.Event); err != nil {
			return err
		}
		fact.Seq = e.Seq
		if fact.Unlisted {
			return c.addUnlisted(e.Event, fact)
		}
		c.facts = append(c.facts, fact)
	}
	if e.Operation == event.OpPush && e.Class != "" {
		c.rows = append(c.rows, pushrow.New(e))
	}
	return nil
}

// addUnlisted takes a pull in that an unlisted account reported. It has no effect on
// private repositories and images.
func (c *counting) addUnlisted(e *event.Event, fact counts.Fact) error {
	if !c.n.public(fact.Repository) {
		return nil
	}
	entry, found, err := c.n.ledger.Get(e.UserDID, e.ManifestDigest)
	if err != nil {
		return err
	}
	fact.Known = found && entry.In(fact.Repository)
	c.facts = append(c.facts, fact)
	return nil
}

func (c *counting) read(entry journal.Entry) (event.Sequenced, error) {
	if c.stream == journal.Pushes {
		return c.n.readFor(sink.Counters, entry)
	}
	return recent.Decode(entry.Seq, entry.Payload)
}

// commit counts the events up to last.
func (c *counting) commit(last uint64) error {
	n := c.n
	for _, r := range c.rows {
		n.publicRows.Add(&r, n.public)
	}
	var b state.Batch
	if err := pushrow.PutAll(&b, c.rows); err != nil {
		return err
	}
	if err := c.notifications.AddTo(&b); err != nil {
		return err
	}
	c.private.addTo(&b)
	return n.counter.Fold(n.journal.ID(), uint8(c.stream), last, c.facts, b.AddTo)
}
