package notifier

import (
	"cmp"
	"errors"
	"iter"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/state"
)

// Dropped keeps letters of events that the journal drops because it is at its limit:
// one for each event of the push stream, and one for each run of pulls.
func (d *DeadLetters) Dropped(s journal.Stream, cursor string, first, last uint64, events iter.Seq2[journal.Entry, error]) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	box := letterBox{cursor, s}
	rest := deadLetter{First: first, Last: last, Reason: "the journal was at its limit before the sink had processed this"}
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
		d.metrics.dead(cursor, int(last-first+1))
	}
	return err
}

// keepUnwritten keeps a letter in memory, merged with the one that is there. The
// caller holds mu.
func (d *DeadLetters) keepUnwritten(box letterBox, l deadLetter) error {
	index, err := d.index(box)
	if err != nil {
		return err
	}
	l.Sink, l.Stream, l.Time = box.sink, box.stream.String(), time.Now().UTC()
	if u := index.unwritten; u != nil {
		l.Events = u.events() + l.events()
		l.First, l.Last = min(u.First, l.First), max(u.Last, l.Last)
	}
	index.unwritten = &l
	return nil
}

// lettersPerCommit is how many letters writeEach commits at once.
const lettersPerCommit = 1000

// writeEach writes letters of the events of rest, and one of those that can't be
// read. The caller holds mu.
func (d *DeadLetters) writeEach(box letterBox, rest deadLetter, events iter.Seq2[journal.Entry, error]) error {
	var letters []deadLetter
	pulls := false // the last letter is of pulls
	for entry, err := range events {
		if errors.Is(err, journal.ErrClosed) {
			return err
		}
		if err != nil {
			rest.Reason += ", and it can't be read: " + err.Error()
			break
		}
		l := deadLetter{First: entry.Seq, Last: entry.Seq, Reason: rest.Reason}
		rest.First = entry.Seq + 1
		if e, err := decodeEvent(entry.Payload); err == nil && e.Operation == opPull {
			if n := len(letters); pulls && letters[n-1].Last+1 == entry.Seq {
				letters[n-1].Last = entry.Seq
				continue
			}
			pulls = true
		} else {
			if err == nil {
				l.describe(e)
			}
			pulls = false
		}
		if len(letters) >= lettersPerCommit {
			if err := d.write(box, letters...); err != nil {
				return err
			}
			letters = letters[:0]
		}
		letters = append(letters, l)
	}
	if rest.First <= rest.Last {
		letters = append(letters, rest)
	}
	if len(letters) == 0 {
		return nil
	}
	return d.write(box, letters...)
}

// A boxIndex is what is kept in memory of a box.
type boxIndex struct {
	letters   int
	bytes     int
	events    uint64
	unwritten *deadLetter // until the disk has free space
	spans     []span      // of the letters, ascending: find reads the state only for these
}

// A span is the range of a letter's events.
type span struct{ first, last uint64 }

func (s span) compare(first uint64) int { return cmp.Compare(s.first, first) }

// insertSpan returns spans with one more, which replaces one that has the same first
// event. The slice that it got is not changed, since find reads it without the lock.
func insertSpan(spans []span, s span) []span {
	at, found := slices.BinarySearchFunc(spans, s.first, span.compare)
	if at == len(spans) {
		return append(spans, s)
	}
	rest := spans[at:]
	if found {
		rest = rest[1:]
	}
	return slices.Concat(spans[:at], []span{s}, rest)
}

// spanOf returns the first event of the span that an event is in.
func spanOf(spans []span, seq uint64) (first uint64, ok bool) {
	at, found := slices.BinarySearchFunc(spans, seq, span.compare)
	if !found {
		at--
	}
	if at < 0 || spans[at].last < seq {
		return 0, false
	}
	return spans[at].first, true
}

// add adds a letter, or with n = -1 subtracts one that is deleted or replaced. Its
// span is removed by the caller.
func (c *boxIndex) add(l *deadLetter, size, n int) {
	if n > 0 {
		c.spans = insertSpan(c.spans, span{l.First, l.Last})
	}
	c.letters += n
	c.bytes += n * size
	c.events += uint64(n) * l.events()
}

// load builds the indexes, once. The caller holds mu.
func (d *DeadLetters) load() error {
	if d.boxes != nil {
		return nil
	}
	boxes := map[letterBox]*boxIndex{}
	err := d.scan(state.Prefix(state.DeadLetters), func(key, val []byte, l *deadLetter) bool {
		box := parseLetterBox(key)
		if boxes[box] == nil {
			boxes[box] = &boxIndex{}
		}
		boxes[box].add(l, len(val), 1)
		return true
	})
	if err == nil {
		d.boxes = boxes
	}
	return err
}

// index returns the index of a box. The caller holds mu.
func (d *DeadLetters) index(box letterBox) (*boxIndex, error) {
	if err := d.load(); err != nil {
		return nil, err
	}
	if d.boxes[box] == nil {
		d.boxes[box] = &boxIndex{}
	}
	return d.boxes[box], nil
}
