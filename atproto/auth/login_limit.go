package auth

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

	"github.com/tidings-dev/tidings/atproto/xrpc"
	"github.com/tidings-dev/tidings/internal/clientaddr"
)

// Login limits.
//
// Checking a password takes about 10 ms and 7 MiB, and anyone can send logins. The
// limits bound that cost; the password itself is too long to be guessed. They must
// not lock the owner out during attempts of others, even from the same address. A login
// takes the first of these ways that applies:
//
//  1. The password is the last correct one. Its keyed hash is kept in memory, so
//     comparing it costs nothing and has no limit. After a restart or a new
//     password the first correct login has to come another way.
//  2. The client is below its limit of attempts in the current window. Clients are
//     counted apart for our account's name and for other names, so that attempts
//     with a wrong name do not use up those with the right one.
//  3. The name is our account's: the attempt goes through the slow lane, one at a
//     time with a pause before each. If too many wait there, it is refused.
//  4. Otherwise it is refused until the window ends.
//
// Passwords are hashed one at a time. The hash is computed for a wrong name as
// well, so that both take the same time. Everything is in memory: a restart
// begins with empty counts, which costs no more than one window of attempts.
const (
	loginWindow     = 5 * time.Minute
	loginsPerClient = 30  // in a window, by one client with one kind of name
	loginsTotal     = 600 // in a window

	slowPause = time.Second // before each login in the slow lane
	slowSlots = 8           // logins in the slow lane; a quarter for one client

	hashWait = 10 * time.Second // until a login is refused because others are being checked
)

// loginLimiter decides which logins may have their password checked.
type loginLimiter struct {
	counts  *windowCounter[attempt]
	slow    *slowLane
	hashing chan struct{} // one password is hashed at a time
}

func newLoginLimiter() *loginLimiter {
	return &loginLimiter{counts: newLoginCounter(), slow: newSlowLane(), hashing: make(chan struct{}, 1)}
}

// check hashes a password within the limits.
func (l *loginLimiter) check(ctx context.Context, from attempt, stored passwordHash, password string, now time.Time) (correct bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, hashWait)
	defer cancel()
	if wait, ok := l.counts.add(from, now); !ok {
		if !from.ours {
			return false, xrpc.TooManyRequests(wait)
		}
		leave, ok := l.slow.enter(ctx, from.client)
		if !ok {
			return false, xrpc.TooManyRequests(hashWait)
		}
		defer leave()
	}
	select {
	case l.hashing <- struct{}{}:
		defer func() { <-l.hashing }()
	case <-ctx.Done():
		return false, xrpc.TooManyRequests(hashWait)
	}
	return stored.matches(password), nil
}

// attempt is the key by which logins are counted.
type attempt struct {
	client netip.Prefix
	ours   bool // the name is our account's
}

func newLoginCounter() *windowCounter[attempt] {
	return &windowCounter[attempt]{window: loginWindow, total: loginsTotal, perKey: loginsPerClient}
}

// slowLane lets attempts over the limit pass one at a time.
type slowLane struct {
	slots *clientaddr.Slots
	turn  chan struct{}
}

func newSlowLane() *slowLane {
	return &slowLane{clientaddr.NewSlots(slowSlots, slowSlots/4), make(chan struct{}, 1)}
}

// enter waits for the attempt's turn, which leave ends. It is not ok if too many
// attempts wait or ctx ends.
func (l *slowLane) enter(ctx context.Context, client netip.Prefix) (leave func(), ok bool) {
	if !l.slots.Acquire(client) {
		return nil, false
	}
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		l.slots.Release(client)
		return nil, false
	}
	leave = func() { <-l.turn; l.slots.Release(client) }
	select {
	case <-time.After(slowPause):
		return leave, true
	case <-ctx.Done():
		leave()
		return nil, false
	}
}

// correctPassword remembers the last correct password, as a hash with a key that
// only this process has.
type correctPassword struct {
	key [sha256.Size]byte

	mu  sync.Mutex
	sum []byte // nil: none
}

func newCorrectPassword() *correctPassword {
	p := &correctPassword{}
	_, _ = rand.Read(p.key[:]) // never fails
	return p
}

// equals reports whether password is the remembered one, and stored is still its
// hash.
func (p *correctPassword) equals(stored passwordHash, password string) bool {
	sum := p.hash(stored, password)
	p.mu.Lock()
	defer p.mu.Unlock()
	return subtle.ConstantTimeCompare(sum, p.sum) == 1
}

func (p *correctPassword) remember(stored passwordHash, password string) {
	sum := p.hash(stored, password)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sum = sum
}

func (p *correctPassword) hash(stored passwordHash, password string) []byte {
	mac := hmac.New(sha256.New, p.key[:])
	_, _ = io.WriteString(mac, stored.String()+" "+password) // never fails
	return mac.Sum(nil)
}
