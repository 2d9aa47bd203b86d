package notifier

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"iter"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/tidings-dev/tidings/atproto/store"
	"github.com/tidings-dev/tidings/notifier/journal"
)

// A DeadLetter is a run of events that a sink has given up, and why.
type DeadLetter struct {
	Sink   string          `json:"sink"`
	First  uint64          `json:"first"` // numbers in the journal, both inclusive
	Last   uint64          `json:"last"`
	Reason string          `json:"reason"`
	Time   time.Time       `json:"time"`
	Event  json.RawMessage `json:"event,omitempty"` // of a single event, if it could be read
}

// DeadLetters keeps what the sinks gave up, in the notifier's store. A letter is
// durable before the cursor moves past its events.
type DeadLetters struct{ db *store.Store }

// NewDeadLetters returns the dead letters that live in db.
func NewDeadLetters(db *store.Store) *DeadLetters { return &DeadLetters{db} }

func (d *DeadLetters) add(sink string, first, last uint64, reason string, event []byte) error {
	letter := DeadLetter{Sink: sink, First: first, Last: last, Reason: reason, Time: time.Now().UTC()}
	if json.Valid(event) {
		letter.Event = event
	}
	val, err := json.Marshal(letter)
	if err != nil {
		return fmt.Errorf("write dead letter: %w", err)
	}
	key := binary.BigEndian.AppendUint64([]byte("d/"+sink+"\x00"), first)
	if err := d.db.Set(key, val, pebble.Sync); err != nil {
		return fmt.Errorf("write dead letter: %w", err)
	}
	return nil
}

// Dropped is the journal's word that its limit makes a cursor give up events.
func (d *DeadLetters) Dropped(s journal.Stream, cursor string, first, last uint64, _ iter.Seq2[journal.Entry, error]) error {
	stream := "push"
	if s == journal.Pulls {
		stream = "pull"
	}
	return d.add(cursor, first, last, "the journal's limit was reached while these "+stream+" events waited", nil)
}

// All returns the letters, by sink and event.
func (d *DeadLetters) All() ([]DeadLetter, error) {
	iter, err := d.db.NewIter(&pebble.IterOptions{LowerBound: []byte("d/"), UpperBound: []byte("d0")})
	if err != nil {
		return nil, fmt.Errorf("read dead letters: %w", err)
	}
	defer iter.Close()
	var all []DeadLetter
	for iter.First(); iter.Valid(); iter.Next() {
		var letter DeadLetter
		if err := json.Unmarshal(iter.Value(), &letter); err != nil {
			return nil, fmt.Errorf("read dead letters: %w", err)
		}
		all = append(all, letter)
	}
	return all, iter.Error()
}
