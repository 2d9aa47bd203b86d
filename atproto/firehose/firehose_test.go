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
		{"?cursor=19", false, 20}, // the last that is gone, so nothing is missing
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
			t.Errorf("%s: taken for live", c.query)
		}
		if c.info {
			if got := s.next(); got != outdated {
				t.Errorf("%s: got %q", c.query, got)
			}
		}
		s.want(seqs(c.first, 40)...)
		s.Close()
	}

	var heads []*client
	for query, want := range map[string]bool{"": true, "?cursor=": true, "?cursor=40": false} {
		heads = append(heads, dial(t, url, query))
		if live := <-joined; live != want {
			t.Errorf("%q: joined live: %v", query, live)
		}
	}
	log.next()
	for _, s := range heads {
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
		t.Error("a refused one has joined")
	}
}

func TestAllKept(t *testing.T) {
	t.Parallel()
	log := newLog(t)
	_, url := serve(t, Config{Log: log})
	empty := dial(t, url, "?cursor=0")
	log.add(0, 10)
	empty.want(10)
	dial(t, url, "?cursor=0").want(10) // and no #info
}

// A cursor between the last event and now may be of a log that was set back, or
// invented: it gets what comes next, and changes nothing for others.
func TestCursorAfterHead(t *testing.T) {
	t.Parallel()
	now := time.Now()
	old, later := uint64(now.Add(-time.Hour).UnixMicro()), uint64(now.UnixMicro())
	log := newLog(t)
	log.add(0, old)
	f, url := serve(t, Config{Log: log, Now: func() time.Time { return now }})
	dial(t, url, fmt.Sprintf("?cursor=%d", later+1)).wantError("FutureCursor") // beyond the clock
	others := dial(t, url, "?cursor=0")
	others.want(old)
	ahead := dial(t, url, fmt.Sprintf("?cursor=%d", later))
	eventually(t, "it is there", func() bool { return f.Subscribers() == 2 })
	log.add(0, later+1)
	ahead.want(later + 1)
	others.want(later + 1)
}

// Whatever the order of writes, joins, stalls and reconnections, each
// subscriber sees each event once and in order.
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
						t.Errorf("subscriber %d: %d after %d", i, got, cursor)
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

// One who doesn't read costs the others nothing, and is dropped in the end.
func TestStalled(t *testing.T) {
	t.Parallel()
	log := newLog(t)
	metrics := NewMetrics()
	f, url := serve(t, Config{Log: log, WriteTimeout: 2 * time.Second, Metrics: metrics})
	stalled, live := dialSmall(t, url, ""), dial(t, url, "")
	eventually(t, "both are there", func() bool { return f.Subscribers() == 2 })
	for seq := uint64(1); seq <= 400; seq++ {
		log.add(64<<10, seq)
		live.want(seq)
	}
	eventually(t, "the stalled one is dropped", func() bool { return f.Subscribers() == 1 })
	live.want(func() uint64 { return log.next() }())
	if n := testutil.ToFloat64(metrics.ended.WithLabelValues("gone")); n != 1 {
		t.Errorf("%v are gone, want 1", n)
	}
	f.feed.mu.Lock()
	defer f.feed.mu.Unlock()
	if f.feed.size > sharedSize+64<<10 {
		t.Errorf("%d bytes are kept for those at the end", f.feed.size)
	}
	_ = stalled
}

// One who is far behind and crawls is told so; one who is far behind and
// hurries is not.
func TestTooSlow(t *testing.T) {
	t.Parallel()
	log := newLog(t)
	start := uint64(time.Now().Add(-24 * time.Hour).UnixMicro())
	log.add(16<<10, seqs(start, start+1500)...)
	metrics := NewMetrics()
	_, url := serve(t, Config{Log: log, Metrics: metrics, Slow: Slow{Behind: time.Hour, Rate: 1 << 30, Window: 200 * time.Millisecond}})
	crawling := dialSmall(t, url, "?cursor=0")
	for {
		_ = crawling.SetReadDeadline(time.Now().Add(patience))
		_, message, err := crawling.ReadMessage()
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
	crawling.wantClose(websocket.ClosePolicyViolation, "ConsumerTooSlow")
	eventually(t, "it is counted", func() bool { return testutil.ToFloat64(metrics.ended.WithLabelValues("slow")) == 1 })

	_, url = serve(t, Config{Log: log, Slow: Slow{Behind: time.Hour, Rate: 1, Window: time.Millisecond}})
	dial(t, url, "?cursor=0").want(seqs(start, start+1500)...)
}

// One whose next event is no longer kept can't be served without a gap.
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
				t.Errorf("%q after %d", message, last)
			}
			break
		}
		var seq uint64
		if _, err := fmt.Sscanf(message, "%d ", &seq); err != nil || seq != last+1 {
			t.Fatalf("%.20q after %d", message, last)
		}
		last = seq
	}
	s.wantClose(websocket.ClosePolicyViolation, "ConsumerTooSlow")
}

// At the end of the log nothing can be missing, however old the end is.
func TestQuietForLong(t *testing.T) {
	t.Parallel()
	log := newLog(t)
	log.add(0, 1, 2)
	_, url := serve(t, Config{Log: log})
	s := dial(t, url, "")
	log.next() // at once: whoever is connected misses nothing
	s.want(3)
	log.drop(3)
	log.next()
	s.want(4)
	dial(t, url, "?cursor=3").want(4)
}

func TestBrokenLog(t *testing.T) {
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
	f, url := serve(t, Config{Log: log, Ping: 50 * time.Millisecond, Silence: time.Second})
	answers, silent := dial(t, url, ""), dial(t, url, "")
	eventually(t, "both are there", func() bool { return f.Subscribers() == 2 })
	var pings atomic.Int32
	standard := answers.PingHandler()
	answers.SetPingHandler(func(data string) error { pings.Add(1); return standard(data) })
	silent.SetPingHandler(func(string) error { return nil })
	go func() { _, _, _ = silent.ReadMessage() }()
	messages := make(chan string, 1)
	go func() { messages <- answers.next() }()
	eventually(t, "the silent one is dropped", func() bool { return f.Subscribers() == 1 })
	log.next()
	if got := <-messages; got != "1 " || pings.Load() < 5 {
		t.Errorf("got %q after %d pings", got, pings.Load())
	}

	// And its own pings are answered, while it streams and while it waits.
	asks := dial(t, url, "")
	pongs := make(chan string, 1)
	asks.SetPongHandler(func(data string) error { pongs <- data; return nil })
	go func() { _, _, _ = asks.ReadMessage() }()
	if err := asks.WriteControl(websocket.PingMessage, []byte("there?"), time.Now().Add(time.Second)); err != nil {
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

// Streams take no messages, and no floods of anything.
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
			t.Errorf("%s: it is not dropped", name)
		}
	}
	eventually(t, "all are dropped", func() bool { return f.Subscribers() == 0 })
	if n := testutil.ToFloat64(metrics.ended.WithLabelValues("flood")); n != 3 {
		t.Errorf("%v floods, want 3", n)
	}
}

func TestShutdown(t *testing.T) {
	t.Parallel()
	log := newLog(t)
	log.add(256<<10, seqs(1, 40)...)
	f, url := serve(t, Config{Log: log, Drain: 500 * time.Millisecond})
	stuck := dialSmall(t, url, "?cursor=0")
	stuck.want(1)
	var live []*client
	for range 20 {
		live = append(live, dial(t, url, ""))
	}
	eventually(t, "all are there", func() bool { return f.Subscribers() == 21 })
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
		t.Errorf("it took %s", took)
	}
	if f.Subscribers() != 0 {
		t.Errorf("%d are left", f.Subscribers())
	}
	if resp, err := get(t, url); err != nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("afterwards: %v %v", resp, err)
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
	var there []*client
	for range 8 {
		there = append(there, dial(t, url, ""))
	}
	resp, err := get(t, url) // loopback has a quarter, as any client
	if err != nil {
		t.Fatal(err)
	}
	var said struct{ Error string }
	if err := json.NewDecoder(resp.Body).Decode(&said); err != nil || resp.StatusCode != 503 || said.Error != "TooManySubscribers" || resp.Header.Get("Retry-After") == "" {
		t.Errorf("one too many: %d %v %v", resp.StatusCode, said, err)
	}
	if full := testutil.ToFloat64(metrics.ended.WithLabelValues("full")); full != 1 {
		t.Errorf("%v turned away, want 1", full)
	}
	there[3].Close()
	eventually(t, "a slot is free", func() bool { return f.Subscribers() == 7 })
	dial(t, url, "")

	// Addresses of one IPv6 network are one client.
	f = New(Config{Log: log, MaxSubscribers: 8})
	for _, c := range []struct {
		addr string
		want bool
	}{{"[2001:db8::1]:99", true}, {"[2001:db8::2]:99", true}, {"[2001:db8::3]:99", false}, {"[2001:db8:0:1::1]:99", true}} {
		if got := f.take(clientaddr.Of(&http.Request{RemoteAddr: c.addr})); got != c.want {
			t.Errorf("a slot for %s: %v", c.addr, got)
		}
	}
}

func TestNoWebSocket(t *testing.T) {
	t.Parallel()
	f, url := serve(t, Config{Log: newLog(t), MaxSubscribers: 1})
	for range 3 { // a failed handshake returns its slot
		resp, err := get(t, url)
		if err != nil {
			t.Fatal(err)
		}
		var said struct{ Error, Message string }
		if err := json.NewDecoder(resp.Body).Decode(&said); err != nil || resp.StatusCode != 400 || said.Error != "InvalidRequest" || !strings.Contains(said.Message, "connect as a WebSocket") {
			t.Errorf("%d %v %v", resp.StatusCode, said, err)
		}
	}
	if f.Subscribers() != 0 {
		t.Error("somebody is there")
	}
}

// A stream doesn't take a slot of running requests.
func TestReturnsAtOnce(t *testing.T) {
	t.Parallel()
	log := newLog(t)
	f := New(Config{Log: log})
	running := make(chan int, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.ServeHTTP(w, r)
		running <- 1
	}))
	defer server.Close()
	s := dial(t, "ws"+strings.TrimPrefix(server.URL, "http"), "?cursor=0")
	<-running
	log.next()
	s.want(1)
	s.Close()
	eventually(t, "it is gone", func() bool { return f.Subscribers() == 0 })
	if f.feed.shared != nil {
		t.Error("frames are kept for nobody")
	}
}
