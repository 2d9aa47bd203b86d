package notifier

import (
	"sync"

	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/sink"
)

// How much recentEvents keeps, encoded. A decoded event takes about three times as
// much memory.
const (
	recentCount = 256
	recentBytes = 4 << 20
)

// recentEvents holds the last recorded pushes with their plans, so that an event is
// decoded and planned once, by the first sink that reads it, and not by each. A
// sink with a longer backlog decodes and plans the events that it reads itself.
type recentEvents struct {
	annotations []string // keys of the annotations that events keep

	mu     sync.Mutex
	events map[uint64]*recentEvent
	order  []uint64
	bytes  int
}

type recentEvent struct {
	seq     uint64
	payload []byte
	keys    []string // of annotations
	once    sync.Once
	event   event.Sequenced
	err     error
}

func (e *recentEvent) read() (event.Sequenced, error) {
	e.once.Do(func() { e.event, e.err = readEvent(e.seq, e.payload, e.keys...) })
	return e.event, e.err
}

// add keeps an event, and removes the oldest beyond the limits.
func (r *recentEvents) add(seq uint64, payload []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.events == nil {
		r.events = map[uint64]*recentEvent{}
	}
	r.events[seq] = &recentEvent{seq: seq, payload: payload, keys: r.annotations}
	r.order = append(r.order, seq)
	r.bytes += len(payload)
	for len(r.order) > recentCount || r.bytes > recentBytes && len(r.order) > 1 {
		r.bytes -= len(r.events[r.order[0]].payload)
		delete(r.events, r.order[0])
		r.order = r.order[1:]
	}
}

// read returns the event of an entry of the push stream, with its plan.
func (r *recentEvents) read(entry journal.Entry) (event.Sequenced, error) {
	r.mu.Lock()
	kept := r.events[entry.Seq]
	r.mu.Unlock()
	if kept != nil {
		return kept.read()
	}
	return readEvent(entry.Seq, entry.Payload, r.annotations...)
}

// readEvent decodes and plans an event. A panic is an error of this event.
func readEvent(seq uint64, payload []byte, annotations ...string) (e event.Sequenced, err error) {
	defer sink.Recover(&err)
	decoded, err := event.Decode(payload, annotations...)
	if err != nil {
		return event.Sequenced{}, err
	}
	p := event.PlanOf(decoded)
	return event.Sequenced{Seq: seq, Event: decoded, Plan: &p}, nil
}
