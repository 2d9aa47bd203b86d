package deadletters

import (
	"errors"
	"iter"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/journal"
)

// droppedReason is the reason of letters of events that the journal has dropped.
const droppedReason = "the journal was at its limit before the sink had processed this"

// SetProcessed sets the function that returns which events the sink of a box has processed, or
// has in its outbox: the journal's cursor moves later, and Dropped keeps no letters of them.
func (d *Store) SetProcessed(processed func(Box) (func(seq uint64) bool, error)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.processed = processed
}

// Dropped keeps letters of events that the journal drops because it is at its limit:
// one for each event of the push stream, and one for each run of pulls.
func (d *Store) Dropped(s journal.Stream, cursor string, first, last uint64, events iter.Seq2[journal.Entry, error]) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	box := Box{cursor, s}
	processed, err := d.processed(box)
	if err != nil {
		return err
	}
	for first <= last && processed(first) {
		first++
	}
	if first > last {
		return nil
	}
	rest := Letter{First: first, Last: last, Reason: droppedReason}
	n := int(last - first + 1)
	switch {
	case d.space() != nil:
		err = d.keepUnwritten(box, rest)
	case s == journal.Pulls:
		err = d.write(box, rest)
	default:
		n, err = d.writeEach(box, rest, events, processed)
	}
	if err == nil {
		d.metrics.Dead(cursor, n)
	}
	return err
}

// Processed removes the letters of events that the journal dropped while the sink handled them.
// It is called after each attempt, with the events that the sink was given.
func (d *Store) Processed(box Box, handled []uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.load(); err != nil || d.boxes[box] == nil {
		return err
	}
	spans := d.boxes[box].spans
	var letters []*Letter
	for _, seq := range handled {
		if _, found := slices.BinarySearchFunc(spans, seq, span.compare); !found {
			continue
		}
		_, l, err := d.get(box, seq)
		if err != nil {
			return err
		}
		if l.Reason == droppedReason && l.Last == seq && !l.Retrying {
			letters = append(letters, l)
		}
	}
	if len(letters) == 0 {
		return nil
	}
	processed, err := d.processed(box)
	if err != nil {
		return err
	}
	for _, l := range letters {
		if !processed(l.First) {
			continue
		}
		if err := d.remove(box, l.First); err != nil {
			return err
		}
	}
	return nil
}

// keepUnwritten keeps a letter in memory, merged with the one that is there. The
// caller holds mu.
func (d *Store) keepUnwritten(box Box, l Letter) error {
	index, err := d.index(box)
	if err != nil {
		return err
	}
	l.Sink, l.Stream, l.Time = box.Sink, box.Stream.String(), time.Now().UTC()
	if u := index.unwritten; u != nil {
		l.Events = u.events() + l.events()
		l.First, l.Last = min(u.First, l.First), max(u.Last, l.Last)
	}
	index.unwritten = &l
	return nil
}

// Limits of what writeEach commits at once.
const (
	lettersPerCommit = 1000
	bytesPerCommit   = 4 << 20
)

// writeEach writes letters of the events of rest that are not processed, and one of those that
// can't be read. It returns how many events they are of. The caller must hold mu.
func (d *Store) writeEach(box Box, rest Letter, events iter.Seq2[journal.Entry, error], processed func(seq uint64) bool) (written int, err error) {
	var letters []Letter
	bytes := 0     // of their events
	pulls := false // the last letter is of pulls
	for entry, err := range events {
		if errors.Is(err, journal.ErrClosed) {
			return written, err
		}
		if err != nil {
			rest.Reason += ", and it can't be read: " + err.Error()
			break
		}
		l := Letter{First: entry.Seq, Last: entry.Seq, Reason: rest.Reason}
		rest.First = entry.Seq + 1
		if processed(entry.Seq) {
			continue
		}
		if retry, err := d.dropRetry(box, entry.Payload); err != nil {
			return written, err
		} else if retry {
			continue
		}
		written++
		if e, err := event.Decode(entry.Payload); err == nil && e.Operation == event.OpPull {
			if n := len(letters); pulls && letters[n-1].Last+1 == entry.Seq {
				letters[n-1].Last = entry.Seq
				continue
			}
			pulls = true
		} else {
			if err == nil {
				l.describe(e)
				if box == uncountedBox && e.Class == "" {
					l.Operation = "" // of a manifest that was found in storage: nobody pushed it
				}
			}
			if box != uncountedBox { // an event that is being counted meanwhile must not be retried
				l.keep(entry.Payload)
			}
			pulls = false
		}
		if len(letters) >= lettersPerCommit || bytes+len(l.Event) > bytesPerCommit && len(letters) > 0 {
			if err := d.write(box, letters...); err != nil {
				return written, err
			}
			letters, bytes = letters[:0], 0
		}
		letters, bytes = append(letters, l), bytes+len(l.Event)
	}
	if rest.First <= rest.Last {
		letters = append(letters, rest)
		written += int(rest.events())
	}
	if len(letters) == 0 {
		return written, nil
	}
	return written, d.write(box, letters...)
}
