package hold

import (
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/internal/clientaddr"
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
	addr := clientaddr.Of(r)
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
