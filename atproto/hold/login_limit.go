package hold

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

const (
	loginWindow    = 5 * time.Minute
	loginsPerAddr  = 30   // in a window, by one address
	loginAddresses = 4096 // that are told apart in a window
)

// loginLimit counts login attempts by address. Password hashing is what it
// protects; the password itself is beyond guessing.
type loginLimit struct {
	mu     sync.Mutex
	until  time.Time // the end of this window
	counts map[netip.Prefix]int
}

// take counts an attempt. If it is one too many, wait says for how long.
func (l *loginLimit) take(r *http.Request, now time.Time) (wait time.Duration, ok bool) {
	addr := clientPrefix(r)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !now.Before(l.until) {
		l.until, l.counts = now.Add(loginWindow), map[netip.Prefix]int{}
	}
	if _, known := l.counts[addr]; !known && len(l.counts) >= loginAddresses {
		addr = netip.Prefix{} // the rest share one count
	}
	if l.counts[addr] >= loginsPerAddr {
		return l.until.Sub(now), false
	}
	l.counts[addr]++
	return 0, true
}

// clientPrefix is the caller's IPv4 address, or IPv6 network of 64 bits. What
// cannot be parsed shares the zero prefix.
func clientPrefix(r *http.Request) netip.Prefix {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return netip.Prefix{}
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Prefix{}
	}
	addr = addr.Unmap().WithZone("")
	bits := 64
	if addr.Is4() {
		bits = 32
	}
	prefix, _ := addr.Prefix(bits) // bits fit the address
	return prefix
}
