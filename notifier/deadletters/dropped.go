package deadletters

import (
	"errors"
	"iter"
	"time"

	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/journal"
)

// Dropped keeps letters of events that the journal drops because it is at its limit:
// one for each event of the push stream, and one for each run of pulls.
func (d *Store) Dropped(s journal.Stream, cursor string, first, last uint64, events iter.Seq2[journal.Entry, error]) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	box := Box{cursor, s}
	rest := Letter{First: first, Last: last, Reason: "the journal was at its limit before the sink had processed this"}
	var err error
	switch {
	case d.space() != nil:
		err = d.keepUnwritten(box, rest)
	case s == journal.Pulls:
		err = d.write(box, rest)
	default:
		err = d.writeEach(box, rest, events)
	}
	if err == nil {
		d.metrics.Dead(cursor, int(last-first+1))
	}
	return err
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

// writeEach writes letters of the events of rest, and one of those that can't be
// read. The caller holds mu.
func (d *Store) writeEach(box Box, rest Letter, events iter.Seq2[journal.Entry, error]) error {
	var letters []Letter
	bytes := 0     // of their events
	pulls := false // the last letter is of pulls
	for entry, err := range events {
		if errors.Is(err, journal.ErrClosed) {
			return err
		}
		if err != nil {
			rest.Reason += ", and it can't be read: " + err.Error()
			break
		}
		l := Letter{First: entry.Seq, Last: entry.Seq, Reason: rest.Reason}
		rest.First = entry.Seq + 1
		if retry, err := d.dropRetry(box, entry.Payload); err != nil {
			return err
		} else if retry {
			continue
		}
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
				return err
			}
			letters, bytes = letters[:0], 0
		}
		letters, bytes = append(letters, l), bytes+len(l.Event)
	}
	if rest.First <= rest.Last {
		letters = append(letters, rest)
	}
	if len(letters) == 0 {
		return nil
	}
	return d.write(box, letters...)
}
