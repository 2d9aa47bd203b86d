package clientaddr

import (
	"net/netip"
	"sync"
)

// Slots limits how many requests run at a time, in all and for one client. It is safe
// for concurrent use.
type Slots struct {
	total, perClient int

	mu       sync.Mutex
	inUse    int
	byClient map[netip.Prefix]int // slots in use
}

// NewSlots returns total slots, of which one client can have at most perClient.
func NewSlots(total, perClient int) *Slots {
	return &Slots{total: total, perClient: perClient, byClient: map[netip.Prefix]int{}}
}

// Acquire acquires a slot for a client and reports whether one was free. The caller
// must release it.
func (s *Slots) Acquire(client netip.Prefix) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inUse >= s.total || s.byClient[client] >= s.perClient {
		return false
	}
	s.inUse++
	s.byClient[client]++
	return true
}

// Release releases a slot that the client has acquired.
func (s *Slots) Release(client netip.Prefix) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inUse--
	if s.byClient[client]--; s.byClient[client] == 0 {
		delete(s.byClient, client)
	}
}

// InUse returns the number of slots in use.
func (s *Slots) InUse() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inUse
}
