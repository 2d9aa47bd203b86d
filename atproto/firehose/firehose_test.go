package firehose

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tidings-dev/tidings/internal/clientaddr"
)

func TestCursors(t *testing.T) {
	t.Parallel()
	log := newLog(t)
	log.add(0, seqs(10, 40)...)
	log.drop(19)
	joined := make(chan bool, 10)
	_, url := serve(t, Config{Log: log, Joined: func(live bool) { joined <- live }})

	outdated := "\xa2ate#infobop\x01\xa2dnamenOutdatedCursorgmessagex8Requested cursor exceeded limit. Possibly missing events"
	for _, c := range []struct {
		query string
		info  bool
		first uint64
	}{
		{"?cursor=19", false, 20}, // the last dropped event, so none is missing
		{"?cursor=20", false, 21},
		{"?cursor=39", false, 40},
		{"?cursor=18", true, 20},
		{"?cursor=0", true, 20},
		{"?cursor=-7", true, 20},
		{"?cursor=20&x=1", false, 21},
		{"?cursor=&cursor=20", false, 21},
	} {
		s := dial(t, url, c.query)
		if live := <-joined; live {
			t.Errorf("%s: joined as live", c.query)
		}
		if c.info {
			if got := s.next(); got != outdated {
				t.Errorf("%s: got %q", c.query, got)
			}
		}
		s.want(seqs(c.first, 40)...)
		s.Close()
	}

	var atHead []*client
	for query, want := range map[string]bool{"": true, "?cursor=": true, "?cursor=40": false} {
		atHead = append(atHead, dial(t, url, query))
		if live := <-joined; live != want {
			t.Errorf("%q: joined as live: %v, want %v", query, live, want)
		}
	}
	log.next()
	for _, s := range atHead {
		s.want(41)
	}

	for query, name := range map[string]string{
		"?cursor=9223372036854775807":         "FutureCursor",
		"?cursor=9223372036854775808":         "InvalidRequest",
		"?cursor=one":                         "InvalidRequest",
		"?cursor=1.0":                         "InvalidRequest",
		"?cursor=20&cursor=21":                "InvalidRequest",
		"?cursor=" + strings.Repeat("9", 500): "InvalidRequest",
	} {
		dial(t, url, query).wantError(name)
	}
	if len(joined) != 0 {
		t.Error("a refused subscriber has joined")
	}
}

func TestCursorZero(t *testing.T) {
	t.Parallel()
	log := newLog(t)
	_, url := serve(t, Config{Log: log})
	empty := dial(t, url, "?cursor=0")
	log.add(0, 10)
	empty.want(10)
	dial(t, url, "?cursor=0").want(10) // no event was dropped, so no #info
}

// A subscriber whose cursor is between the last event and now gets the next event. The
// cursor may be from a log that was restored to an earlier state. It does not affect
// other subscribers.
func TestCursorAfterHead(t *testing.T) {
	t.Parallel()
	now := time.Now()
	old, later := uint64(now.Add(-time.Hour).UnixMicro()), uint64(now.UnixMicro())
	log := newLog(t)
	log.add(0, old)
	f, url := serve(t, Config{Log: log, Now: func() time.Time { return now }})
	dial(t, url, fmt.Sprintf("?cursor=%d", later+1)).wantError("FutureCursor")
	others := dial(t, url, "?cursor=0")
	others.want(old)
	ahead := dial(t, url, fmt.Sprintf("?cursor=%d", later))
	eventually(t, "two subscribers", func() bool { return f.Subscribers() == 2 })
	log.add(0, later+1)
	ahead.want(later + 1)
	others.want(later + 1)
}

// Each subscriber gets each event once and in order, with writes, pauses and
// reconnections in a random order.
func TestReplayWithoutGap(t *testing.T) {
	t.Parallel()
	log := newLog(t)
	log.add(0, seqs(1, 500)...)
	_, url := serve(t, Config{Log: log})
	const last = 6000
	var writing, reading sync.WaitGroup
	writing.Go(func() {
		for seq := uint64(501); seq <= last; {
			n := min(last, seq+rand.Uint64N(20))
			log.add(rand.IntN(400), seqs(seq, n)...)
			seq = n + 1
			if rand.IntN(4) == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	})
	for i := range 12 {
		reading.Go(func() {
			cursor := rand.Uint64N(600)
			cursor = min(cursor, log.Head())
			for cursor < last {
				s := dial(t, url, fmt.Sprintf("?cursor=%d", cursor))
				for n := rand.IntN(2000); n >= 0 && cursor < last; n-- {
					if got := s.seq(); got != cursor+1 {
						t.Errorf("subscriber %d: got %d after %d", i, got, cursor)
						return
					}
					cursor++
					if rand.IntN(300) == 0 {
						time.Sleep(time.Duration(rand.IntN(5)) * time.Millisecond)
					}
				}
				s.Close()
			}
		})
	}
	writing.Wait()
	reading.Wait()
}

// A subscriber that does not read delays no other, and is dropped.
func TestStalled(t *testing.T) {
	t.Parallel()
	log := newLog(t)
	metrics := NewMetrics()
	f, url := serve(t, Config{Log: log, WriteTimeout: 2 * time.Second, Metrics: metrics})
	stalled, live := dialSmall(t, url, ""), dial(t, url, "")
	eventually(t, "two subscribers", func() bool { return f.Subscribers() == 2 })
	for seq := uint64(1); seq <= 400; seq++ {
		log.add(64<<10, seq)
		live.want(seq)
	}
	eventually(t, "the stalled subscriber is dropped", func() bool { return f.Subscribers() == 1 })
	live.want(log.next())
	if n := testutil.ToFloat64(metrics.ended.WithLabelValues("gone")); n != 1 {
		t.Errorf("%v subscribers counted as gone, want 1", n)
	}
	f.feed.mu.Lock()
	defer f.feed.mu.Unlock()
	if f.feed.size > sharedSize+64<<10 {
		t.Errorf("%d bytes of frames in memory", f.feed.size)
	}
	_ = stalled
}

// A subscriber that is far behind is dropped if it reads slowly, and only then.
func TestTooSlow(t *testing.T) {
	t.Parallel()
	log := newLog(t)
	start := uint64(time.Now().Add(-24 * time.Hour).UnixMicro())
	log.add(16<<10, seqs(start, start+1500)...)
	metrics := NewMetrics()
	_, url := serve(t, Config{Log: log, Metrics: metrics, Slow: Slow{Behind: time.Hour, Rate: 1 << 30, Window: 200 * time.Millisecond}})
	slow := dialSmall(t, url, "?cursor=0")
	for {
		_ = slow.SetReadDeadline(time.Now().Add(patience))
		_, message, err := slow.ReadMessage()
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(string(message), "\xa1bop\x20") {
			if !strings.Contains(string(message), "ConsumerTooSlow") {
				t.Errorf("got %q", message)
			}
			break
		}
		time.Sleep(time.Millisecond)
	}
	slow.wantClose(websocket.ClosePolicyViolation, "ConsumerTooSlow")
	eventually(t, "the drop is counted", func() bool { return testutil.ToFloat64(metrics.ended.WithLabelValues("slow")) == 1 })

	_, url = serve(t, Config{Log: log, Slow: Slow{Behind: time.Hour, Rate: 1, Window: time.Millisecond}})
	dial(t, url, "?cursor=0").want(seqs(start, start+1500)...)
}

// A subscriber whose next event was dropped can't be served without a gap.
func TestFellBehind(t *testing.T) {
	t.Parallel()
	log := newLog(t)
	log.add(64<<10, seqs(1, 400)...)
	_, url := serve(t, Config{Log: log})
	s := dialSmall(t, url, "?cursor=0")
	s.want(1)
	log.drop(399)
	last := uint64(1)
	for {
		message := s.next()
		if strings.HasPrefix(message, "\xa1bop\x20") {
			if !strings.Contains(message, "ConsumerTooSlow") || last == 400 {
				t.Errorf("got %q after %d", message, last)
			}
			break
		}
		var seq uint64
		if _, err := fmt.Sscanf(message, "%d ", &seq); err != nil || seq != last+1 {
			t.Fatalf("got %.20q after %d", message, last)
		}
		last = seq
	}
	s.wantClose(websocket.ClosePolicyViolation, "ConsumerTooSlow")
}

// A subscriber at the end of the log has missed nothing, even if the last event was
// dropped.
func TestLastEventDropped(t *testing.T) {
	t.Parallel()
	log := newLog(t)
	log.add(0, 1, 2)
	_, url := serve(t, Config{Log: log})
	s := dial(t, url, "")
	log.next() // at once: a connected subscriber misses no event
	s.want(3)
	log.drop(3)
	log.next()
	s.want(4)
	dial(t, url, "?cursor=3").want(4)
}

func TestLogFails(t *testing.T) {
	t.Parallel()
	log := newLog(t)
	log.add(0, 1)
	_, url := serve(t, Config{Log: log})
	live := dial(t, url, "?cursor=0")
	live.want(1)
	log.fail()
	log.next()
	live.wantClose(websocket.CloseInternalServerErr, "InternalServerError")
	dial(t, url, "?cursor=0").wantClose(websocket.CloseInternalServerErr, "InternalServerError")
}

func TestPings(t *testing.T) {
	t.Parallel()
	log := newLog(t)
	f, url := serve(t, Config{Log: log, PingInterval: 50 * time.Millisecond, PongTimeout: time.Second})
	responsive, silent := dial(t, url, ""), dial(t, url, "")
	eventually(t, "two subscribers", func() bool { return f.Subscribers() == 2 })
	var pings atomic.Int32
	standard := responsive.PingHandler()
	responsive.SetPingHandler(func(data string) error { pings.Add(1); return standard(data) })
	silent.SetPingHandler(func(string) error { return nil })
	go func() { _, _, _ = silent.ReadMessage() }()
	messages := make(chan string, 1)
	go func() { messages <- responsive.next() }()
	eventually(t, "the silent subscriber is dropped", func() bool { return f.Subscribers() == 1 })
	log.next()
	if got := <-messages; got != "1 " || pings.Load() < 5 {
		t.Errorf("got %q after %d pings", got, pings.Load())
	}

	// Pings of a subscriber are answered.
	pinging := dial(t, url, "")
	pongs := make(chan string, 1)
	pinging.SetPongHandler(func(data string) error { pongs <- data; return nil })
	go func() { _, _, _ = pinging.ReadMessage() }()
	if err := pinging.WriteControl(websocket.PingMessage, []byte("there?"), time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-pongs:
		if got != "there?" {
			t.Errorf("pong %q", got)
		}
	case <-time.After(patience):
		t.Error("no pong")
	}
}

// A subscriber that sends large or many messages is dropped.
func TestFlood(t *testing.T) {
	t.Parallel()
	log := newLog(t)
	metrics := NewMetrics()
	f, url := serve(t, Config{Log: log, Metrics: metrics})
	for name, flood := range map[string]func(*client){
		"large message": func(c *client) { _ = c.WriteMessage(websocket.BinaryMessage, make([]byte, 1<<20)) },
		"messages": func(c *client) {
			for c.WriteMessage(websocket.TextMessage, []byte("x")) == nil {
			}
		},
		"pings": func(c *client) {
			for c.WriteControl(websocket.PingMessage, nil, time.Now().Add(time.Second)) == nil {
			}
		},
	} {
		c := dial(t, url, "")
		go func() {
			for {
				if _, _, err := c.ReadMessage(); err != nil {
					return
				}
			}
		}()
		done := make(chan struct{})
		go func() { flood(c); close(done) }()
		select {
		case <-done:
		case <-time.After(patience):
			t.Errorf("%s: the subscriber is not dropped", name)
		}
	}
	eventually(t, "all subscribers are dropped", func() bool { return f.Subscribers() == 0 })
	if n := testutil.ToFloat64(metrics.ended.WithLabelValues("flood")); n != 3 {
		t.Errorf("%v floods, want 3", n)
	}
}

func TestShutdown(t *testing.T) {
	t.Parallel()
	log := newLog(t)
	log.add(256<<10, seqs(1, 40)...)
	f, url := serve(t, Config{Log: log, DrainTimeout: 500 * time.Millisecond})
	stuck := dialSmall(t, url, "?cursor=0")
	stuck.want(1)
	var live []*client
	for range 20 {
		live = append(live, dial(t, url, ""))
	}
	eventually(t, "21 subscribers", func() bool { return f.Subscribers() == 21 })
	begun := time.Now()
	done := make(chan error, 2)
	for range 2 {
		go func() { done <- f.Shutdown(context.Background()) }()
	}
	for _, c := range live {
		c.wantClose(websocket.CloseGoingAway, "shutting down")
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("Shutdown took %s", took)
	}
	if f.Subscribers() != 0 {
		t.Errorf("%d subscribers after Shutdown", f.Subscribers())
	}
	if resp, err := get(t, url); err != nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("request after Shutdown: %v, %v", resp, err)
	}
	if err := f.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestSlots(t *testing.T) {
	t.Parallel()
	log := newLog(t)
	metrics := NewMetrics()
	f, url := serve(t, Config{Log: log, MaxSubscribers: 32, Metrics: metrics})
	var clients []*client
	for range 8 { // a quarter, for loopback as for any other client
		clients = append(clients, dial(t, url, ""))
	}
	eventually(t, "eight subscribers", func() bool { return f.Subscribers() == 8 })
	resp, err := get(t, url)
	if err != nil {
		t.Fatal(err)
	}
	var body struct{ Error string }
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil || resp.StatusCode != 503 || body.Error != "TooManySubscribers" || resp.Header.Get("Retry-After") == "" {
		t.Errorf("without a free slot: %d %v %v", resp.StatusCode, body, err)
	}
	if full := testutil.ToFloat64(metrics.ended.WithLabelValues("full")); full != 1 {
		t.Errorf("%v counted as full, want 1", full)
	}
	clients[3].Close()
	eventually(t, "a slot is free", func() bool { return f.Subscribers() == 7 })
	dial(t, url, "")

	// Addresses of one IPv6 network are one client.
	f = New(Config{Log: log, MaxSubscribers: 8})
	for _, c := range []struct {
		addr string
		want bool
	}{{"[2001:db8::1]:99", true}, {"[2001:db8::2]:99", true}, {"[2001:db8::3]:99", false}, {"[2001:db8:0:1::1]:99", true}} {
		if got := f.acquire(clientaddr.Of(&http.Request{RemoteAddr: c.addr})); got != c.want {
			t.Errorf("slot for %s: %v", c.addr, got)
		}
	}
}

func TestNoWebSocket(t *testing.T) {
	t.Parallel()
	f, url := serve(t, Config{Log: newLog(t), MaxSubscribers: 1})
	for range 3 { // a failed handshake releases its slot
		resp, err := get(t, url)
		if err != nil {
			t.Fatal(err)
		}
		var body struct{ Error, Message string }
		if err := json.NewDecoder(resp.Body).Decode(&body); err != nil || resp.StatusCode != 400 || body.Error != "InvalidRequest" || !strings.Contains(body.Message, "connect as a WebSocket") {
			t.Errorf("got %d %v %v", resp.StatusCode, body, err)
		}
	}
	if f.Subscribers() != 0 {
		t.Errorf("%d subscribers", f.Subscribers())
	}
}

// ServeHTTP returns while the stream continues.
func TestServeHTTPReturns(t *testing.T) {
	t.Parallel()
	log := newLog(t)
	f := New(Config{Log: log})
	returned := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.ServeHTTP(w, r)
		close(returned)
	}))
	defer server.Close()
	s := dial(t, "ws"+strings.TrimPrefix(server.URL, "http"), "?cursor=0")
	<-returned
	log.next()
	s.want(1)
	s.Close()
	eventually(t, "no subscribers", func() bool { return f.Subscribers() == 0 })
	if f.feed.shared != nil {
		t.Error("frames are kept in memory without subscribers")
	}
}
