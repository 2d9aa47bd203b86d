package hold

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"io"
	"net/netip"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/internal/clientaddr"
)

const (
	loginWindow     = 5 * time.Minute
	loginsPerClient = 30  // in a window, by one client under one name
	loginsOfAll     = 600 // in a window

	slowPause   = time.Second // before each login in the slow lane
	slowWaiting = 8           // logins that are in it; a quarter of one client
)

// loginLimit counts passwords that are hashed, by who sent them and whether they
// are for our account. The hashing is what it protects; the password itself is
// beyond guessing.
type loginLimit struct {
	mu     sync.Mutex
	until  time.Time // the end of this window
	all    int
	counts map[loginKey]int
}

type loginKey struct {
	client netip.Prefix
	ours   bool
}

// take counts an attempt. If it is one too many, wait says until when.
func (l *loginLimit) take(key loginKey, now time.Time) (wait time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !now.Before(l.until) {
		l.until, l.all, l.counts = now.Add(loginWindow), 0, map[loginKey]int{}
	}
	if l.all >= loginsOfAll || l.counts[key] >= loginsPerClient {
		return l.until.Sub(now), false
	}
	l.all++
	l.counts[key]++
	return 0, true
}

// slowLane lets attempts for our account through that are too many for the
// limit, one after the other with a pause before each. So nobody is locked out
// by others who share the address, and guessing stays slow.
type slowLane struct {
	places *clientaddr.Places
	turn   chan struct{}
}

func newSlowLane() *slowLane {
	return &slowLane{clientaddr.NewPlaces(slowWaiting, slowWaiting/4), make(chan struct{}, 1)}
}

// enter waits for its turn; leave ends it. It is not ok if too many wait.
func (l *slowLane) enter(ctx context.Context, client netip.Prefix) (leave func(), ok bool) {
	if !l.places.Take(client) {
		return nil, false
	}
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		l.places.Give(client)
		return nil, false
	}
	leave = func() { <-l.turn; l.places.Give(client) }
	select {
	case <-time.After(slowPause):
		return leave, true
	case <-ctx.Done():
		leave()
		return nil, false
	}
}

// rightPassword remembers the password that was right last, as a hash with a key
// of this process. Whoever presents it again is let in without a limit, however
// many others try: nothing slow is to be done.
type rightPassword struct {
	key [sha256.Size]byte

	mu  sync.Mutex
	sum []byte // nil: none is known
}

func newRightPassword() *rightPassword {
	r := &rightPassword{}
	_, _ = rand.Read(r.key[:]) // never fails
	return r
}

// is says whether password is the one that is remembered, and stored is still
// its hash.
func (r *rightPassword) is(stored passwordHash, password string) bool {
	sum := r.hash(stored, password)
	r.mu.Lock()
	defer r.mu.Unlock()
	return subtle.ConstantTimeCompare(sum, r.sum) == 1
}

func (r *rightPassword) remember(stored passwordHash, password string) {
	sum := r.hash(stored, password)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sum = sum
}

func (r *rightPassword) hash(stored passwordHash, password string) []byte {
	mac := hmac.New(sha256.New, r.key[:])
	_, _ = io.WriteString(mac, stored.String()+" "+password) // never fails
	return mac.Sum(nil)
}
