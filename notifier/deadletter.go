package notifier

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/stats"
)

// A DeadLetter is an event, or a run of events, that a sink has given up, and
// why.
type DeadLetter struct {
	Sink   string    `json:"sink"`
	Stream string    `json:"stream,omitempty"` // "pushes" or "pulls"
	First  uint64    `json:"first"`            // numbers in the journal, both inclusive
	Last   uint64    `json:"last"`
	Events uint64    `json:"events,omitempty"` // how many of them were given up; 0: all
	Reason string    `json:"reason"`
	Time   time.Time `json:"time"` // when they were given up

	// Of a single event, if it could be read:
	Operation  string          `json:"operation,omitempty"` // "push", "delete" or "untag"
	Repository string          `json:"repository,omitempty"`
	Tag        string          `json:"tag,omitempty"`
	Digest     string          `json:"digest,omitempty"`
	Happened   time.Time       `json:"happened,omitzero"`
	Event      json.RawMessage `json:"event,omitempty"` // all of it, unless the journal's limit took it
}

func (l *DeadLetter) events() uint64 {
	if l.Events > 0 {
		return l.Events
	}
	return l.Last - l.First + 1
}

// describe fills in what is known of a single event.
func (l *DeadLetter) describe(e *Event) {
	l.Operation, l.Repository, l.Tag, l.Digest, l.Happened = e.Operation, e.Name(), e.Tag, e.ManifestDigest, e.Time
}

// What is kept of one sink and stream. Beyond that the oldest letters become
// one for all of their events.
const (
	keptLetters     = 100_000
	keptLetterBytes = 64 << 20
)

// DeadLetters keeps what the sinks gave up, in the notifier's store. A letter is
// durable before the cursor moves past its events, unless the journal's limit
// takes them while the disk has no space: then it is in memory until it has.
type DeadLetters struct {
	db       state.Store
	space    func() error // an error while the disk has too little room
	letters  int          // keptLetters
	capacity int          // keptLetterBytes

	mu      sync.Mutex
	metrics *Metrics
	boxes   map[box]*content // nil: not yet read

	// Of pushes that were given up before they were counted, the numbers of those
	// that everybody may see, ascending.
	public     func(repository string) bool // nil: not looked at
	publicSeqs []uint64
}

// uncountedBox has the letters of pushes that were given up before they were
// counted.
var uncountedBox = box{counterSink, journal.Pushes}

// A box has the letters of one sink and stream.
type box struct {
	sink   string
	stream journal.Stream
}

type content struct {
	letters int
	bytes   int
	events  uint64
	waiting *DeadLetter // for space on the disk
	spans   []span      // of the letters, ascending: what has none is not looked for on the disk
}

// span are the events of a letter.
type span struct{ first, last uint64 }

// with adds the span of a letter to others. Those are not changed.
func with(spans []span, s span) []span {
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

func (s span) compare(first uint64) int { return cmp.Compare(s.first, first) }

// NewDeadLetters returns the dead letters that live in db. space returns an error
// while the disk has too little room to write on.
func NewDeadLetters(db state.Store, space func() error) *DeadLetters {
	return &DeadLetters{db: db, space: space, letters: keptLetters, capacity: keptLetterBytes}
}

// measure makes m count what the journal's limit takes.
func (d *DeadLetters) measure(m *Metrics) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.metrics = m
}

// show keeps a list of the pushes that public allows.
func (d *DeadLetters) show(public func(repository string) bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.public, d.publicSeqs = public, nil
	from, to := uncountedBox.bounds()
	return d.scan(from, to, func(_, _ []byte, l *DeadLetter) bool {
		d.list(l)
		return true
	})
}

// list adds a letter of uncountedBox to the list, if it belongs there. mu is held.
func (d *DeadLetters) list(l *DeadLetter) {
	if d.public == nil || l.Operation != opPush || !d.public(l.Repository) {
		return
	}
	if at, found := slices.BinarySearch(d.publicSeqs, l.First); !found {
		d.publicSeqs = slices.Insert(d.publicSeqs, at, l.First)
	}
}

// bounds are those of the keys of a box.
func (b box) bounds() (from, to []byte) {
	from = b.prefix()
	return from, append(from[:len(from)-1:len(from)-1], 1)
}

// prefix is what the keys of a box begin with; the number of a letter's first
// event follows. Older versions put the pulls of a sink among its pushes.
func (b box) prefix() []byte {
	if b.stream == journal.Pulls {
		return []byte("d/" + b.sink + "/pulls\x00")
	}
	return []byte("d/" + b.sink + "\x00")
}

func (b box) key(first uint64) []byte { return binary.BigEndian.AppendUint64(b.prefix(), first) }

func boxOf(key []byte) box {
	name, _, _ := bytes.Cut(key[len("d/"):], []byte{0})
	if sink, ok := strings.CutSuffix(string(name), "/pulls"); ok {
		return box{sink, journal.Pulls}
	}
	return box{string(name), journal.Pushes}
}

// load counts the letters, once. mu is held.
func (d *DeadLetters) load() error {
	if d.boxes != nil {
		return nil
	}
	boxes := map[box]*content{}
	err := d.scan([]byte("d/"), []byte("d0"), func(key, val []byte, l *DeadLetter) bool {
		b := boxOf(key)
		if boxes[b] == nil {
			boxes[b] = &content{}
		}
		boxes[b].add(l, len(val), 1)
		return true
	})
	if err == nil {
		d.boxes = boxes
	}
	return err
}

// add takes in that a letter is there, or with -1 that it is gone or will be added
// again.
func (c *content) add(l *DeadLetter, size, n int) {
	if n > 0 {
		c.spans = with(c.spans, span{l.First, l.Last})
	}
	c.letters += n
	c.bytes += n * size
	c.events += uint64(n) * l.events()
}

func (d *DeadLetters) open(b box) (*content, error) {
	if err := d.load(); err != nil {
		return nil, err
	}
	if d.boxes[b] == nil {
		d.boxes[b] = &content{}
	}
	return d.boxes[b], nil
}

// add keeps an event of the push stream.
func (d *DeadLetters) add(sink string, first, last uint64, reason string, event []byte) error {
	return d.addTo(journal.Pushes, sink, first, last, reason, event)
}

func (d *DeadLetters) addTo(s journal.Stream, sink string, first, last uint64, reason string, event []byte) error {
	letter := DeadLetter{First: first, Last: last, Reason: reason}
	if json.Valid(slices.Concat([]byte{'['}, event, []byte{']'})) { // as deep as in the letter
		letter.Event = event
	}
	if e, err := decodeEvent(event); err == nil {
		letter.describe(e)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.write(box{sink, s}, letter)
}

// write makes letters of one box durable. mu is held.
func (d *DeadLetters) write(b box, letters ...DeadLetter) error {
	c, err := d.open(b)
	if err != nil {
		return err
	}
	if c.waiting != nil {
		letters = append(letters, *c.waiting)
	}
	batch, after := &state.Batch{}, *c
	after.waiting = nil
	for i := range letters {
		if err := d.put(batch, &after, b, &letters[i]); err != nil {
			return fmt.Errorf("write dead letter: %w", err)
		}
	}
	if err := d.db.Commit(batch, state.Sync); err != nil {
		return fmt.Errorf("write dead letter: %w", err)
	}
	*c = after
	if c.letters > d.letters || c.bytes > d.capacity {
		return d.merge(b, c)
	}
	return nil
}

// put writes a letter, maybe again.
func (d *DeadLetters) put(batch *state.Batch, c *content, b box, l *DeadLetter) error {
	l.Sink, l.Stream = b.sink, b.stream.String()
	if l.Time.IsZero() {
		l.Time = time.Now().UTC()
	}
	key := b.key(l.First)
	val, err := json.Marshal(l)
	if err != nil {
		return err
	}
	old, err := d.db.Get(key)
	if err == nil {
		var before DeadLetter
		if err := json.Unmarshal(old, &before); err != nil {
			return err
		}
		c.add(&before, len(old), -1)
	} else if !errors.Is(err, state.ErrNotFound) {
		return err
	}
	c.add(l, len(val), 1)
	if b == uncountedBox {
		d.list(l)
	}
	batch.Set(key, val)
	return nil
}

// merge makes one letter of the oldest quarter of a box. mu is held.
func (d *DeadLetters) merge(b box, c *content) error {
	after := *c
	var merged DeadLetter
	var end []byte
	n := 0
	from, to := b.bounds()
	err := d.scan(from, to, func(key, val []byte, l *DeadLetter) bool {
		if n == 0 {
			merged.First = l.First
		}
		merged.Last = max(merged.Last, l.Last)
		merged.Events += l.events()
		merged.Time = l.Time
		after.add(l, len(val), -1)
		end = append(bytes.Clone(key), 0)
		n++
		return n < max(2, c.letters/4)
	})
	if err != nil {
		return err
	}
	after.spans = slices.Clone(c.spans[min(n, len(c.spans)):])
	merged.Reason = fmt.Sprintf("there are more than %d letters or %d bytes of them; these were the oldest", d.letters, d.capacity)
	batch := &state.Batch{}
	batch.DeleteRange(state.Range{From: b.key(merged.First), To: end})
	merged.Sink, merged.Stream = b.sink, b.stream.String()
	val, err := json.Marshal(merged)
	if err != nil {
		return err
	}
	batch.Set(b.key(merged.First), val)
	after.add(&merged, len(val), 1)
	if err := d.db.Commit(batch, state.Sync); err != nil {
		return fmt.Errorf("merge dead letters: %w", err)
	}
	if b == uncountedBox {
		d.publicSeqs = slices.DeleteFunc(d.publicSeqs, func(seq uint64) bool { return seq <= merged.Last })
	}
	*c = after
	return nil
}

// Dropped is the journal's word that its limit makes a cursor give up events.
// Of those in the push stream each has a letter, but for pulls that another
// registry told of.
func (d *DeadLetters) Dropped(s journal.Stream, cursor string, first, last uint64, events iter.Seq2[journal.Entry, error]) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := box{cursor, s}
	rest := DeadLetter{First: first, Last: last, Reason: "the journal was at its limit before the sink had taken this"}
	var err error
	switch {
	case d.space() != nil:
		err = d.wait(b, rest)
	case s == journal.Pulls:
		err = d.write(b, rest)
	default:
		err = d.writeEach(b, rest, events)
	}
	if err == nil {
		d.metrics.dead(cursor, int(last-first+1))
	}
	return err
}

// wait keeps a letter in memory, as one with those that are there. mu is held.
func (d *DeadLetters) wait(b box, l DeadLetter) error {
	c, err := d.open(b)
	if err != nil {
		return err
	}
	l.Sink, l.Stream, l.Time = b.sink, b.stream.String(), time.Now().UTC()
	if w := c.waiting; w != nil {
		l.Events = w.events() + l.events()
		l.First, l.Last = min(w.First, l.First), max(w.Last, l.Last)
	}
	c.waiting = &l
	return nil
}

// letterBatch is how many letters are written at once.
const letterBatch = 1000

// writeEach makes letters of events, which are those of rest, and one of what
// can't be read. mu is held.
func (d *DeadLetters) writeEach(b box, rest DeadLetter, events iter.Seq2[journal.Entry, error]) error {
	var letters []DeadLetter
	pulls := false // the last letter is of pulls
	for entry, err := range events {
		if errors.Is(err, journal.ErrClosed) {
			return err
		}
		if err != nil {
			rest.Reason += ", and it can't be read: " + err.Error()
			break
		}
		l := DeadLetter{First: entry.Seq, Last: entry.Seq, Reason: rest.Reason}
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
		if len(letters) >= letterBatch {
			if err := d.write(b, letters...); err != nil {
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
	return d.write(b, letters...)
}

// Failed returns the letter of one event of the push stream, without the event
// itself; false if the sink
// has not given it up, or so long ago that its letter is one with others.
func (d *DeadLetters) Failed(sink string, seq uint64) (DeadLetter, bool, error) {
	b := box{sink, journal.Pushes}
	d.mu.Lock()
	c, err := d.open(b)
	if err != nil {
		d.mu.Unlock()
		return DeadLetter{}, false, err
	}
	waiting, spans := c.waiting, c.spans
	d.mu.Unlock()
	if waiting != nil && waiting.covers(seq) {
		return *waiting, true, nil
	}
	at, found := slices.BinarySearchFunc(spans, seq, span.compare)
	if !found {
		at--
	}
	if at < 0 || spans[at].last < seq {
		return DeadLetter{}, false, nil
	}
	val, err := d.db.Get(b.key(spans[at].first))
	if errors.Is(err, state.ErrNotFound) {
		return DeadLetter{}, false, nil
	}
	if err != nil {
		return DeadLetter{}, false, fmt.Errorf("read dead letters: %w", err)
	}
	l, err := decodeLetter(withoutEvent(val))
	if err != nil || !l.covers(seq) {
		return DeadLetter{}, false, err
	}
	return *l, true, nil
}

// uncounted returns the numbers of the newest pushes that were given up before they
// were counted, the newest first, at most limit of them: of all, or of those that
// are public.
func (d *DeadLetters) uncounted(limit int, all bool) ([]uint64, error) {
	if !all {
		d.mu.Lock()
		defer d.mu.Unlock()
		seqs := slices.Clone(d.publicSeqs[max(0, len(d.publicSeqs)-limit):])
		slices.Reverse(seqs)
		return seqs, nil
	}
	from, to := uncountedBox.bounds()
	var seqs []uint64
	err := d.db.Scan(state.Range{From: from, To: to, Reverse: true}, func(_, val []byte) error {
		if len(seqs) >= limit {
			return state.Stop
		}
		l, err := decodeLetter(withoutEvent(val))
		if err == nil && l.Operation == opPush {
			seqs = append(seqs, l.First)
		}
		return err
	})
	return seqs, err
}

// push is what the API tells of a push that has no more than its letter.
func (l *DeadLetter) push() stats.Push {
	p := stats.Push{
		Time: l.Happened, Repository: l.Repository, Digest: l.Digest,
		Tags: []string{}, Platforms: []string{}, State: stateFailed, Reason: l.Sink + ": " + l.Reason,
	}
	if l.Tag != "" {
		p.Tags = []string{l.Tag}
	}
	return p
}

// covers reports whether the event of the push stream was surely given up.
func (l *DeadLetter) covers(seq uint64) bool {
	return l.First <= seq && seq <= l.Last && l.events() == l.Last-l.First+1 && l.Stream == journal.Pushes.String()
}

// Count returns how many events each sink has given up whose letters are kept,
// also before a restart. What waited for space on the disk is written.
func (d *DeadLetters) Count() (map[string]int, error) {
	boxes, err := d.count()
	counts := map[string]int{}
	for b, n := range boxes {
		counts[b.sink] += n
	}
	return counts, err
}

func (d *DeadLetters) count() (map[box]int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.load(); err != nil {
		return nil, err
	}
	counts := map[box]int{}
	for b, c := range d.boxes {
		if c.waiting != nil && d.space() == nil {
			if err := d.write(b); err != nil {
				return nil, err
			}
		}
		counts[b] = int(c.events)
		if c.waiting != nil {
			counts[b] += int(c.waiting.events())
		}
	}
	return counts, nil
}

// All returns the letters, by sink and event.
func (d *DeadLetters) All() ([]DeadLetter, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.load(); err != nil {
		return nil, err
	}
	var all []DeadLetter
	err := d.scan([]byte("d/"), []byte("d0"), func(_, _ []byte, l *DeadLetter) bool {
		all = append(all, *l)
		return true
	})
	for _, c := range d.boxes {
		if c.waiting != nil {
			all = append(all, *c.waiting)
		}
	}
	return all, err
}

// scan calls f with the letters from one key up to another, until it says
// enough.
func (d *DeadLetters) scan(from, to []byte, f func(key, val []byte, l *DeadLetter) (more bool)) error {
	err := d.db.Scan(state.Range{From: from, To: to}, func(key, val []byte) error {
		l, err := decodeLetter(val)
		if err == nil && !f(key, val, l) {
			err = state.Stop
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("read dead letters: %w", err)
	}
	return nil
}

// withoutEvent cuts the event, which can have megabytes, off an encoded letter. It
// is the last member, and no string before it can hold an unescaped quote.
func withoutEvent(val []byte) []byte {
	head, _, found := bytes.Cut(val, []byte(`,"event":`))
	if !found {
		return val
	}
	return append(bytes.Clone(head), '}')
}

func decodeLetter(val []byte) (*DeadLetter, error) {
	var l DeadLetter
	if err := json.Unmarshal(val, &l); err != nil {
		return nil, fmt.Errorf("decode dead letter: %w", err)
	}
	if l.Stream == "" { // of an older version
		l.Stream = journal.Pushes.String()
		if strings.Contains(l.Reason, "these pull events") {
			l.Stream = journal.Pulls.String()
		}
	}
	return &l, nil
}
