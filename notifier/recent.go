package notifier

import (
	"sync"

	"github.com/tidings-dev/tidings/notifier/journal"
)

// How much recent keeps, encoded. Decoded, an event takes about three times as
// much.
const (
	recentEvents = 256
	recentBytes  = 4 << 20
)

// recent holds the last pushes as they were recorded, so that each is decoded
// by the first sink that meets it and by no other. Its events are shared and
// must not be changed.
type recent struct {
	mu     sync.Mutex
	events map[uint64]*recentEvent
	order  []uint64
	bytes  int
}

type recentEvent struct {
	payload []byte
	once    sync.Once
	event   *Event
	err     error
}

// decode gives the event, decoded once.
func (e *recentEvent) decode() (*Event, error) {
	e.once.Do(func() { e.event, e.err = decodeEvent(e.payload) })
	return e.event, e.err
}

// add keeps an event and forgets the oldest ones.
func (r *recent) add(seq uint64, payload []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.events == nil {
		r.events = map[uint64]*recentEvent{}
	}
	r.events[seq] = &recentEvent{payload: payload}
	r.order = append(r.order, seq)
	r.bytes += len(payload)
	for len(r.order) > recentEvents || r.bytes > recentBytes && len(r.order) > 1 {
		r.bytes -= len(r.events[r.order[0]].payload)
		delete(r.events, r.order[0])
		r.order = r.order[1:]
	}
}

// decode gives the event of an entry of the push stream.
func (r *recent) decode(entry journal.Entry) (*Event, error) {
	r.mu.Lock()
	kept := r.events[entry.Seq]
	r.mu.Unlock()
	if kept != nil {
		return kept.decode()
	}
	return decodeEvent(entry.Payload)
}
