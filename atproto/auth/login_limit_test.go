package auth

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A client with too many attempts has to use the slow lane. It does not lock out
// clients with other addresses, nor clients that know the password.
func TestLoginLimit(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	loopback := netip.MustParsePrefix("127.0.0.1/32")
	exhaust := func() {
		for range loginsPerClient {
			for _, ours := range []bool{true, false} {
				if _, ok := h.sessions.limit.counts.add(attempt{loopback, ours}, h.clock()); !ok {
					t.Fatal("the limit is reached too early")
				}
			}
		}
	}
	fill := func() (leave func()) {
		for range slowSlots / 4 {
			if !h.sessions.limit.slow.slots.Acquire(loopback) {
				t.Fatal("no slot")
			}
		}
		return func() {
			for range slowSlots / 4 {
				h.sessions.limit.slow.slots.Release(loopback)
			}
		}
	}
	refused := func(name, wait string) {
		t.Helper()
		resp, _ := h.Do(h.Request("POST", "/xrpc/"+loginMethod, `{"identifier":"`+name+`","password":"x"}`))
		if resp.StatusCode != 429 || resp.Header.Get("Retry-After") != wait {
			t.Errorf("got %d, Retry-After %q, want 429 and %s", resp.StatusCode, resp.Header.Get("Retry-After"), wait)
		}
	}
	exhaust()
	leave := fill()
	refused("other.example.com", "300")
	refused(hostname, "10")
	if status, body := h.login(hostname, h.password); status != 429 {
		t.Errorf("correct, but not known to be: got %d %v", status, body)
	}
	leave()
	refused("other.example.com", "300")
	if status, body := h.login(hostname, "wrong"); status != 401 {
		t.Errorf("wrong, in the slow lane: got %d %v", status, body)
	}
	if status, body := h.login(hostname, h.password); status != 200 {
		t.Errorf("correct, in the slow lane: got %d %v", status, body)
	}
	fill()
	for range 3 {
		if status, body := h.login(hostname, h.password); status != 200 {
			t.Errorf("the last correct password: got %d %v", status, body)
		}
	}
	if status, body := h.login("other.example.com", h.password); status != 401 {
		t.Errorf("other name: got %d %v", status, body)
	}
	refused(hostname, "10")
	old := h.password
	var err error
	if h.password, err = SetPassword(h.sessions.cfg.PasswordFile); err != nil {
		t.Fatal(err)
	}
	if status, body := h.login(hostname, old); status != 429 {
		t.Errorf("the previous password: got %d %v", status, body)
	}
	if _, ok := h.sessions.limit.counts.add(attempt{netip.MustParsePrefix("192.0.2.1/32"), true}, h.clock()); !ok {
		t.Error("another address is refused")
	}
	h.advance(loginWindow)
	if status, body := h.login(hostname, h.password); status != 200 {
		t.Errorf("in the next window: got %d %v", status, body)
	}
}

func TestLoginCounterLimit(t *testing.T) {
	t.Parallel()
	l := newLoginCounter()
	refused := 0
	now := time.Now()
	for i := range 3 * loginsTotal {
		addr := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		if _, ok := l.add(attempt{netip.PrefixFrom(addr, 32), true}, now); !ok {
			refused++
		}
	}
	if len(l.counts) != loginsTotal || refused != 2*loginsTotal {
		t.Errorf("%d clients are counted, %d attempts refused", len(l.counts), refused)
	}
}

// The slow lane admits one attempt at a time and limits the time to wait.
func TestSlowLane(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newSlowLane()
		begun := time.Now()
		var admitted atomic.Int32
		var all sync.WaitGroup
		for i := range 4 * slowSlots {
			client := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 32)
			all.Go(func() {
				leave, ok := l.enter(t.Context(), client)
				if ok {
					admitted.Add(1)
					leave()
				}
			})
		}
		all.Wait()
		if n, took := admitted.Load(), time.Since(begun); n != slowSlots || took != slowSlots*slowPause || took >= hashWait {
			t.Errorf("%d were admitted in %v", n, took)
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, ok := l.enter(gone, netip.Prefix{}); ok || l.slots.InUse() != 0 || len(l.turn) != 0 {
			t.Errorf("canceled attempt: %v, %d slots are taken", ok, l.slots.InUse())
		}
	})
}
