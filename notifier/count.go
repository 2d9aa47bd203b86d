package notifier

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/tidings-dev/tidings/notifier/counter"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/deadletters"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/inbound"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/pushrow"
	"github.com/tidings-dev/tidings/notifier/runner"
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
	n.runner.Run(ctx, runner.ID{Sink: sink.Counters, Stream: s}, runner.Job{
		Step: func(turn context.Context) error { return n.stepCounter(turn, s) },
	})
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
	last = entries[len(entries)-1].Seq
	if err := n.countEntries(s, entries); err != nil {
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

// countEntries counts events in one transaction. Those of rows that can't be decoded are given
// up, and the others are counted without them.
func (n *Notifier) countEntries(s journal.Stream, entries []journal.Entry) error {
	for {
		c := counting{n: n, stream: s, notifications: n.inbound.NewBatch(), private: privateBatch{images: n.private}}
		for _, entry := range entries {
			if err := c.add(entry); err != nil {
				return err
			}
		}
		err := c.commit(entries[len(entries)-1].Seq)
		var damaged *counter.DamagedError
		if !errors.As(err, &damaged) {
			return err
		}
		for _, i := range damaged.Facts {
			at, _ := slices.BinarySearchFunc(entries, c.facts[i].Seq, func(e journal.Entry, seq uint64) int { return cmp.Compare(e.Seq, seq) })
			if err := c.giveUp(entries[at], err); err != nil {
				return err
			}
		}
	}
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
	handled       []uint64 // numbers of the events that have an effect
	retries       []uint64 // numbers of the letters whose events are retried
}

// add takes an event in. One that can't be read is given up.
func (c *counting) add(entry journal.Entry) error {
	e, err := c.n.readFor(c.box(), entry)
	if err != nil && !undecodable(err) {
		return err
	}
	if err != nil {
		return c.giveUp(entry, err)
	}
	if !e.IsNothing() {
		c.handled = append(c.handled, e.Seq)
	}
	row := e.Seq // of a push
	if e.Retry != nil {
		row = e.Retry.Letter
		c.retries = append(c.retries, row)
	}
	if e.Inbound != nil {
		repeated, err := c.notifications.Repeated(row, e.Time, e.Inbound)
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
		pushed := pushrow.New(e)
		pushed.Seq = row
		c.rows = append(c.rows, pushed)
	}
	return nil
}

func (c *counting) box() deadletters.Box {
	return deadletters.Box{Sink: sink.Counters, Stream: c.stream}
}

// giveUp gives up an event that can't be counted.
func (c *counting) giveUp(entry journal.Entry, reason error) error {
	if err := c.n.giveUp(c.box(), entry.Seq, entry.Payload, reason); err != nil {
		return err
	}
	return c.n.counter.UsesLost()
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

// commit counts the events up to last, and removes the letters of those that are retried: in
// one transaction, so that no crash lets an event be counted twice. Then it removes the letters
// of those that the journal dropped meanwhile.
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
	var ended []func()
	for _, letter := range c.retries {
		end, err := n.dead.EndRetryIn(&b, c.box(), letter)
		if err != nil {
			return err
		}
		ended = append(ended, end)
	}
	if err := n.counter.Fold(n.journal.ID(), uint8(c.stream), last, c.facts, b.AddTo); err != nil {
		return err
	}
	for _, end := range ended {
		end()
	}
	return n.dead.Processed(c.box(), c.handled)
}
