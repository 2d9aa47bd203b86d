package clientaddr

import (
	"net/netip"
	"sync"
)

// Places are what a few may have at a time, of whom one client gets a share.
// They are safe to use together.
type Places struct {
	all, each int

	mu    sync.Mutex
	taken int
	by    map[netip.Prefix]int
}

// NewPlaces makes places, of which one client gets each at most.
func NewPlaces(all, each int) *Places {
	return &Places{all: all, each: each, by: map[netip.Prefix]int{}}
}

// Take takes a place, if there is one for this client; give it back.
func (p *Places) Take(client netip.Prefix) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken >= p.all || p.by[client] >= p.each {
		return false
	}
	p.taken++
	p.by[client]++
	return true
}

// Give gives a place back.
func (p *Places) Give(client netip.Prefix) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken--
	if p.by[client]--; p.by[client] == 0 {
		delete(p.by, client)
	}
}

// Taken is how many places are taken.
func (p *Places) Taken() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken
}
