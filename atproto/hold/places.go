package hold

import (
	"net/http"
	"net/netip"
	"sync"
)

// places are what a few callers may have at a time. One address gets a part of
// them, unless it is loopback: then something is in front that all come through.
type places struct {
	all, each int

	mu    sync.Mutex
	taken int
	by    map[netip.Prefix]int
}

// take takes a place, if there is one for this caller; give it back.
func (p *places) take(r *http.Request) bool {
	addr := clientPrefix(r)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken >= p.all || !addr.Addr().IsLoopback() && p.by[addr] >= p.each {
		return false
	}
	if p.by == nil {
		p.by = map[netip.Prefix]int{}
	}
	p.taken++
	p.by[addr]++
	return true
}

func (p *places) give(r *http.Request) {
	addr := clientPrefix(r)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken--
	if p.by[addr]--; p.by[addr] == 0 {
		delete(p.by, addr)
	}
}
