package sink

import "sync"

// A Signal wakes all goroutines that wait for something to change. The zero value
// is ready to use.
type Signal struct {
	mu   sync.Mutex
	next chan struct{} // nil: no goroutine waits
}

// Wait returns a channel that the next Send closes. A caller that gets the channel
// first and then looks at what may have changed misses no change.
func (s *Signal) Wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == nil {
		s.next = make(chan struct{})
	}
	return s.next
}

// Send wakes them.
func (s *Signal) Send() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next != nil {
		close(s.next)
		s.next = nil
	}
}
