package recent

import (
	"sync"

	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/journal"
)

// Stamps caches the stamp of the push after each cursor, so that no event is read twice to
// know the age of the oldest pending one. The zero value is ready to use.
type Stamps struct {
	mu    sync.Mutex
	first map[uint64]event.Stamp // by cursor; a few
}

// After returns the stamp of the first push after a cursor; false if there is none, or if it
// can't be read.
func (p *Stamps) After(j *journal.Journal, cursor uint64) (event.Stamp, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if first, ok := p.first[cursor]; ok {
		return first, true
	}
	entries, err := j.Read(journal.Pushes, cursor, 1, 1)
	if err != nil || len(entries) == 0 {
		return event.Stamp{}, false
	}
	first, ok := event.StampOf(entries[0].Payload)
	if !ok {
		return event.Stamp{}, false
	}
	if p.first == nil || len(p.first) >= 8 {
		p.first = map[uint64]event.Stamp{}
	}
	p.first[cursor] = first
	return first, true
}
