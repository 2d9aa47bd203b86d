// Package inspect describes a journal to an operator: its files, how far each sink is, the
// pending events and the open intents.
package inspect

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/journal"
)

// MaxEvents is how many pending events of a sink are described at most.
const MaxEvents = 1000

// A Report is what is known of a journal.
type Report struct {
	ID         string   `json:"id"`
	Folder     string   `json:"folder"`
	Limit      int64    `json:"limitBytes,omitempty"` // of the events of a stream
	Streams    []Stream `json:"streams"`
	Sinks      []Sink   `json:"sinks"`
	Intents    []Intent `json:"openIntents"`          // of interrupted pushes and deletes
	InProgress int      `json:"inProgress,omitempty"` // pushes and deletes that storage is working on
}

// A Stream is one of the two streams.
type Stream struct {
	Stream   string    `json:"stream"` // "pushes" or "pulls"
	First    uint64    `json:"first"`  // sequence numbers; First is Last+1 when there are no events
	Last     uint64    `json:"last"`
	Bytes    int64     `json:"bytes"`
	Segments []Segment `json:"segments"`
}

// A Segment is a file.
type Segment struct {
	File  string `json:"file"`
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
	Bytes int64  `json:"bytes"`
}

// A Sink is the position of a sink in a stream.
type Sink struct {
	Sink     string    `json:"sink"`
	Stream   string    `json:"stream"`
	Position uint64    `json:"position"` // the last event that it has processed
	Pending  uint64    `json:"pending"`
	Paused   time.Time `json:"pausedSince,omitzero"` // by an operator
	Events   []Event   `json:"events,omitempty"`     // the first pending ones
}

// An Event is a pending event.
type Event struct {
	Seq        uint64    `json:"seq"`
	Time       time.Time `json:"time,omitzero"`
	Operation  string    `json:"operation,omitempty"`
	Repository string    `json:"repository,omitempty"`
	Tag        string    `json:"tag,omitempty"`
	Digest     string    `json:"digest,omitempty"`
	Retry      string    `json:"retry,omitempty"` // the dead letter that it retries, such as "records/17"
	Bytes      int       `json:"bytes"`
	Unreadable string    `json:"unreadable,omitempty"` // why it can't be read
}

// An Intent is a push or delete that was interrupted.
type Intent struct {
	Operation  string `json:"operation,omitempty"`
	Repository string `json:"repository,omitempty"`
	Tag        string `json:"tag,omitempty"`
	Digest     string `json:"digest,omitempty"`
	Unreadable string `json:"unreadable,omitempty"`
}

// A Position is how far a sink is.
type Position struct {
	Sink   string
	Stream journal.Stream
	Done   uint64
	Paused time.Time // zero: it is not paused
}

// New describes a journal, with up to events pending events of each sink.
func New(j *journal.Journal, folder string, positions []Position, events int) (*Report, error) {
	r := &Report{ID: j.ID(), Folder: folder, Limit: j.Limit(), InProgress: j.InProgress(), Sinks: []Sink{}, Intents: []Intent{}}
	last := map[journal.Stream]uint64{}
	for _, s := range []journal.Stream{journal.Pushes, journal.Pulls} {
		status := j.Status(s)
		last[s] = status.Last
		stream := Stream{Stream: s.String(), First: status.First, Last: status.Last, Bytes: status.Bytes, Segments: []Segment{}}
		for _, g := range j.Segments(s) {
			stream.Segments = append(stream.Segments, Segment{filepath.Base(g.Path), g.First, g.Last, g.Bytes})
		}
		r.Streams = append(r.Streams, stream)
	}
	for _, p := range positions {
		s := Sink{Sink: p.Sink, Stream: p.Stream.String(), Position: p.Done, Pending: last[p.Stream] - min(last[p.Stream], p.Done), Paused: p.Paused}
		var err error
		if s.Events, err = pending(j, p, min(events, MaxEvents)); err != nil {
			return nil, err
		}
		r.Sinks = append(r.Sinks, s)
	}
	for _, open := range j.Unresolved() {
		r.Intents = append(r.Intents, intentOf(open.Payload))
	}
	return r, nil
}

// pending describes the first events after a position. Retries of other sinks are left out.
func pending(j *journal.Journal, p Position, limit int) (all []Event, err error) {
	for after := p.Done; len(all) < limit; {
		entries, err := j.Read(p.Stream, after, limit, 4<<20)
		if err != nil || len(entries) == 0 {
			return all, err
		}
		for _, entry := range entries {
			after = entry.Seq
			if r, _, ok := event.CutRetry(entry.Payload); ok && r.Sink != p.Sink {
				continue
			}
			if len(all) < limit {
				all = append(all, eventOf(entry))
			}
		}
	}
	return all, nil
}

func eventOf(entry journal.Entry) Event {
	found := Event{Seq: entry.Seq, Bytes: len(entry.Payload)}
	e, err := event.Decode(entry.Payload)
	if err != nil {
		found.Unreadable = reason(err)
		return found
	}
	found.Time, found.Operation, found.Repository, found.Tag, found.Digest = e.Time, e.Operation, e.Name(), e.Tag, e.ManifestDigest
	if e.Retry != nil {
		found.Retry = fmt.Sprintf("%s/%d", e.Retry.Sink, e.Retry.Letter)
	}
	return found
}

func intentOf(payload []byte) Intent {
	e, err := event.Decode(payload)
	if err != nil {
		return Intent{Unreadable: reason(err)}
	}
	return Intent{Operation: e.Operation, Repository: e.Name(), Tag: e.Tag, Digest: e.ManifestDigest}
}

func reason(err error) string {
	if errors.Is(err, event.ErrNewer) {
		return "a newer version of the program wrote it"
	}
	return err.Error()
}
