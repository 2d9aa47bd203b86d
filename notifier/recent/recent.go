package recent

import (
	"sync"

	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/sink"
)

// How much Pushes keeps, encoded. A decoded event takes about three times as
// much memory.
const (
	maxCount = 256
	maxBytes = 4 << 20
)

// Pushes holds the last recorded pushes with their plans, so that an event is
// decoded and planned once, by the first sink that reads it, and not by each. A
// sink with a longer backlog decodes and plans the events that it reads itself.
type Pushes struct {
	Annotations []string // keys of the annotations that events keep

	mu     sync.Mutex
	events map[uint64]*entry
	order  []uint64
	bytes  int
}

type entry struct {
	seq     uint64
	payload []byte
	keys    []string // of annotations
	once    sync.Once
	event   event.Sequenced
	err     error
}

func (e *entry) read() (event.Sequenced, error) {
	e.once.Do(func() { e.event, e.err = Decode(e.seq, e.payload, e.keys...) })
	return e.event, e.err
}

// Add keeps an event, and removes the oldest beyond the limits.
func (p *Pushes) Add(seq uint64, payload []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.events == nil {
		p.events = map[uint64]*entry{}
	}
	p.events[seq] = &entry{seq: seq, payload: payload, keys: p.Annotations}
	p.order = append(p.order, seq)
	p.bytes += len(payload)
	for len(p.order) > maxCount || p.bytes > maxBytes && len(p.order) > 1 {
		p.bytes -= len(p.events[p.order[0]].payload)
		delete(p.events, p.order[0])
		p.order = p.order[1:]
	}
}

// Read returns the event of an entry of the push stream, with its plan.
func (p *Pushes) Read(e journal.Entry) (event.Sequenced, error) {
	p.mu.Lock()
	kept := p.events[e.Seq]
	p.mu.Unlock()
	if kept != nil {
		return kept.read()
	}
	return Decode(e.Seq, e.Payload, p.Annotations...)
}

// Decode decodes and plans an event. A panic is an error of this event.
func Decode(seq uint64, payload []byte, annotations ...string) (e event.Sequenced, err error) {
	defer sink.Recover(&err)
	decoded, err := event.Decode(payload, annotations...)
	if err != nil {
		return event.Sequenced{}, err
	}
	plan := event.PlanOf(decoded)
	return event.Sequenced{Seq: seq, Event: decoded, Plan: &plan}, nil
}
