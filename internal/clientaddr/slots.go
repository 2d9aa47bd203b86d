package clientaddr

import (
	"net/netip"
	"sync"
)

// Slots limits how many requests run at a time, in all and for one client. It is safe
// for concurrent use.
type Slots struct {
	all, each int

	mu    sync.Mutex
	taken int
	by    map[netip.Prefix]int
}

// NewSlots returns all slots, of which one client gets at most each.
func NewSlots(all, each int) *Slots {
	return &Slots{all: all, each: each, by: map[netip.Prefix]int{}}
}

// Take takes a slot and reports whether there was one for this client. Give returns it.
func (s *Slots) Take(client netip.Prefix) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken >= s.all || s.by[client] >= s.each {
		return false
	}
	s.taken++
	s.by[client]++
	return true
}

// Give returns a slot.
func (s *Slots) Give(client netip.Prefix) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken--
	if s.by[client]--; s.by[client] == 0 {
		delete(s.by, client)
	}
}

// Taken returns the number of slots in use.
func (s *Slots) Taken() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken
}
