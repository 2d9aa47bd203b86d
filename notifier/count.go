package notifier

import (
	"context"
	"errors"
	"runtime/debug"

	"github.com/tidings-dev/tidings/notifier/counter"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/stats"
)

// counterSink is the cursor's name of the counters in both streams. The counter
// has a cursor of its own, which moves with its numbers. The journal is told of
// it, and writes it down when it deletes events.
const counterSink = "counters"

// counted are the streams that the counters read.
var counted = []journal.Stream{journal.Pushes, journal.Pulls}

// How many events are folded into one transaction.
const (
	foldEvents = 5000
	foldBytes  = 4 << 20
)

// count folds a stream into the counters until ctx ends.
func (n *Notifier) count(ctx context.Context, s journal.Stream) error {
	wait := n.newBackoff(counterSink)
	for ctx.Err() == nil {
		if err := n.fold(ctx, s); err != nil {
			wait.sleep(ctx, err)
			continue
		}
		wait.reset()
	}
	return nil
}

func (n *Notifier) fold(ctx context.Context, s journal.Stream) error {
	after := n.Counter.Latest(uint8(s))
	last := n.Journal.Status(s).Last
	entries, err := n.Journal.Read(s, after, foldEvents, foldBytes)
	if err != nil {
		return err
	}
	if len(entries) == 0 && last > after {
		// The journal was set back and does not use these numbers again.
		return n.Counter.Fold(n.Journal.ID(), uint8(s), last, nil, nil)
	}
	if len(entries) == 0 {
		n.Journal.Wait(ctx, s, after)
		return nil
	}
	if err := n.Space(); err != nil {
		return err
	}
	var facts []counter.Fact
	var rows []row
	told, private := callBatch{calls: &n.calls}, privateBatch{n: n}
	for _, entry := range entries {
		e, fact, err := n.factOf(s, entry)
		if errors.Is(err, errNewer) {
			return err
		}
		if err != nil {
			if err := n.DeadLetters.addTo(s, counterSink, entry.Seq, entry.Seq, err.Error(), entry.Payload); err != nil {
				return err
			}
			n.Metrics.dead(counterSink, 1)
			continue
		}
		again, err := told.again(entry.Seq, e)
		if err != nil {
			return err
		}
		if again {
			continue
		}
		if fact != nil {
			if fact.Repository, err = private.name(e); err != nil {
				return err
			}
			fact.Seq = entry.Seq
			facts = append(facts, *fact)
		}
		if e.Operation == opPush && e.Class != "" {
			rows = append(rows, row{entry.Seq, e.summary()})
		}
	}
	last = entries[len(entries)-1].Seq
	for _, r := range rows {
		n.publicPushes.add(r.seq, r.push.Repository, r.push.Digest, n.Public)
	}
	var b state.Batch
	if err := errors.Join(putRows(&b, rows), told.put(&b), private.put(&b)); err != nil {
		return err
	}
	if err := n.Counter.Fold(n.Journal.ID(), uint8(s), last, facts, b.AddTo); err != nil {
		return err
	}
	if s == journal.Pushes {
		n.calls.counted(last)
		n.results.ring()
	}
	if err := n.release(s, last); err != nil {
		return err
	}
	n.rest(ctx, len(entries), foldEvents)
	return nil
}

// release lets the journal drop what is in the numbers.
func (n *Notifier) release(s journal.Stream, last uint64) error {
	return n.Journal.Passed(s, counterSink, last)
}

// factOf decodes an event and says what is counted of it. A panic is an error of
// that event.
func (n *Notifier) factOf(s journal.Stream, entry journal.Entry) (e *Event, fact *counter.Fact, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = &panicError{reason, debug.Stack()}
		}
	}()
	if s == journal.Pushes {
		e, err = n.recent.decode(entry)
	} else {
		e, err = decodeEvent(entry.Payload)
	}
	if err != nil {
		return nil, nil, err
	}
	return e, plan(e).Counted, nil
}

// A row is a push as the API shows it.
type row struct {
	seq  uint64
	push *stats.Push
}

func putRows(b *state.Batch, rows []row) error {
	for _, r := range rows {
		if err := putResult(b, r.seq, r.push); err != nil {
			return err
		}
	}
	if len(rows) == 0 {
		return nil
	}
	first, last := rows[0].seq, rows[len(rows)-1].seq
	if first/pruneEvery == last/pruneEvery && first%pruneEvery != 0 {
		return nil
	}
	return prune(b, last)
}

// summary is what the API tells of a push.
func (e *Event) summary() *stats.Push {
	p := &stats.Push{
		ID:         e.ID(),
		Time:       e.Time,
		Repository: e.Name(),
		Digest:     e.ManifestDigest,
		Kind:       string(e.Kind),
		Size:       sizeOf(&e.Manifest),
		Layers:     len(e.Manifest.Layers),
		Platforms:  platformsOf(&e.Manifest),
		Tags:       []string{},
	}
	if e.Tag != "" {
		p.Tags = []string{e.Tag}
	}
	return p
}
