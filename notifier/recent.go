package notifier

import (
	"sync"

	"github.com/tidings-dev/tidings/notifier/journal"
)

// keptRecent is how many events recent holds. With the sinks up to date each
// push is decoded by none of them; when one is behind, it decodes.
const keptRecent = 256

// recent holds the last pushes as they were recorded, so that sinks which are
// up to date need not decode what was encoded a moment ago. Its events are
// shared and must not be changed.
type recent struct {
	mu     sync.Mutex
	events [keptRecent]sequenced
}

func (r *recent) add(seq uint64, e *Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events[seq%keptRecent] = sequenced{seq, e}
}

// decode gives the event of an entry of the push stream.
func (r *recent) decode(entry journal.Entry) (*Event, error) {
	r.mu.Lock()
	kept := r.events[entry.Seq%keptRecent]
	r.mu.Unlock()
	if kept.Event != nil && kept.seq == entry.Seq {
		return kept.Event, nil
	}
	return decodeEvent(entry.Payload)
}
