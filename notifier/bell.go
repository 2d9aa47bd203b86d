package notifier

import "sync"

// A bell wakes those who wait for something to change. The zero bell is ready.
type bell struct {
	mu   sync.Mutex
	rung chan struct{} // nil: nobody listens
}

// listen returns what is closed by the next ring. Who looks at what may have
// changed after that misses nothing.
func (b *bell) listen() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rung == nil {
		b.rung = make(chan struct{})
	}
	return b.rung
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rung != nil {
		close(b.rung)
		b.rung = nil
	}
}
