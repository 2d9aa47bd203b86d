package deadletters

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/state"
)

// A Letter is an event, or a run of events, that a sink gave up, with the reason.
// This is its form in the state.
type Letter struct {
	Sink   string    `json:"sink"`
	Stream string    `json:"stream,omitempty"` // "pushes" or "pulls"
	First  uint64    `json:"first"`            // sequence numbers, both inclusive
	Last   uint64    `json:"last"`
	Events uint64    `json:"events,omitempty"` // how many of them were given up; 0: all
	Reason string    `json:"reason"`
	Time   time.Time `json:"time"` // when they were given up

	Attempts int  `json:"attempts,omitempty"` // how often a single event was given up; 0: not known
	Retrying bool `json:"retrying,omitempty"` // its retry is in the journal, see retry.go

	// Of a single event that could be read:
	Operation  string          `json:"operation,omitempty"` // "push", "delete" or "untag"
	Repository string          `json:"repository,omitempty"`
	Tag        string          `json:"tag,omitempty"`
	Digest     string          `json:"digest,omitempty"`
	Happened   time.Time       `json:"happened,omitzero"`
	Event      json.RawMessage `json:"event,omitempty"` // the whole event; none if the journal dropped it before it was counted, or if letters were merged
}

func (l *Letter) events() uint64 {
	if l.Events > 0 {
		return l.Events
	}
	return l.Last - l.First + 1
}

// Count is the number of events of the letter.
func (l *Letter) Count() uint64 { return l.events() }

// covers reports whether it is certain that an event of a stream is among those of the
// letter.
func (l *Letter) covers(s journal.Stream, seq uint64) bool {
	return l.First <= seq && seq <= l.Last && l.events() == l.Last-l.First+1 && l.Stream == s.String()
}

// keep keeps the event itself, unless it is no JSON.
func (l *Letter) keep(payload []byte) {
	if json.Valid(slices.Concat([]byte{'['}, payload, []byte{']'})) { // nested as deep as in the letter
		l.Event = payload
	}
}

// describe fills in what is known of a single event.
func (l *Letter) describe(e *event.Event) {
	l.Operation, l.Repository, l.Tag, l.Digest, l.Happened = e.Operation, e.Name(), e.Tag, e.ManifestDigest, e.Time
}

// decodeLetter decodes a letter, also one that an older version wrote.
func decodeLetter(val []byte) (*Letter, error) {
	var l Letter
	if err := json.Unmarshal(val, &l); err != nil {
		return nil, fmt.Errorf("decode dead letter: %w", err)
	}
	if l.Stream == "" {
		l.Stream = journal.Pushes.String()
		if strings.Contains(l.Reason, "these pull events") {
			l.Stream = journal.Pulls.String()
		}
	}
	return &l, nil
}

// withoutEvent cuts the event, which can have megabytes, off an encoded letter. It is
// the last member, and no string before it can contain an unescaped quote.
func withoutEvent(val []byte) []byte {
	head, _, found := bytes.Cut(val, []byte(`,"event":`))
	if !found {
		return val
	}
	return append(bytes.Clone(head), '}')
}

// A Box identifies the letters of one sink and stream.
type Box struct {
	Sink   string
	Stream journal.Stream
}

// Name is the name of a letter in commands, by the sequence number of its first event: records/17,
// or counters/17/pulls for one of the stream of pulls.
func (b Box) Name(first uint64) string {
	name := fmt.Sprintf("%s/%d", b.Sink, first)
	if b.Stream == journal.Pulls {
		name += "/pulls"
	}
	return name
}

// uncountedBox has the letters of pushes that were given up before they were counted.
var uncountedBox = Box{sink.Counters, journal.Pushes}

// prefix begins the keys of a box, followed by the sequence number of the letter's
// first event. Older versions kept the letters of pulls among those of pushes.
func (b Box) prefix() string {
	if b.Stream == journal.Pulls {
		return state.DeadLetters + b.Sink + "/pulls\x00"
	}
	return state.DeadLetters + b.Sink + "\x00"
}

func (b Box) key(first uint64) []byte { return state.SeqKey(b.prefix(), first, "") }

func (b Box) keys() state.Range { return state.Prefix(b.prefix()) }

// parseBox returns the box of a key.
func parseBox(key []byte) Box {
	name, _, _ := bytes.Cut(key[len(state.DeadLetters):], []byte{0})
	if sink, ok := strings.CutSuffix(string(name), "/pulls"); ok {
		return Box{sink, journal.Pulls}
	}
	return Box{string(name), journal.Pushes}
}
