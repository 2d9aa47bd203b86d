package crawl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tidings-dev/tidings/atproto/guard"
)

// fakeLog is a log of which only the end is known.
type fakeLog struct {
	mu   sync.Mutex
	head uint64
	wake chan struct{}
}

func newLog() *fakeLog { return &fakeLog{head: 1, wake: make(chan struct{})} }

func (l *fakeLog) next() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.head++
	close(l.wake)
	l.wake = make(chan struct{})
}

func (l *fakeLog) Head() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head
}

func (l *fakeLog) Wake(uint64) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.wake
}

// relay is an http.RoundTripper that responds with the next of its statuses, and at
// last always with the last one.
type relay struct {
	mu         sync.Mutex
	statuses   []int    // 0: a network error
	retryAfter string   // header of each response
	requests   []string // "<seconds since start> <method>"
	start      time.Time
}

func (r *relay) RoundTrip(req *http.Request) (*http.Response, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	body, _ := io.ReadAll(req.Body)
	nsid := req.URL.Path[strings.LastIndexByte(req.URL.Path, '.')+1:]
	r.requests = append(r.requests, fmt.Sprintf("%.0f %s", time.Since(r.start).Seconds(), nsid))
	var input map[string]string
	if err := json.Unmarshal(body, &input); err != nil || len(input) != 1 || input["hostname"] != "hold.example.com" || req.Method != "POST" {
		return nil, fmt.Errorf("unexpected request %s %s", req.Method, body)
	}
	status := r.statuses[0]
	if len(r.statuses) > 1 {
		r.statuses = r.statuses[1:]
	}
	if status == 0 {
		return nil, errors.New("no route")
	}
	header := http.Header{}
	if r.retryAfter != "" {
		header.Set("Retry-After", r.retryAfter)
	}
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(`{"error":"Nope","message":"not you"}`))}, nil
}

func (r *relay) received() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.requests)
}

// testCrawler is a running Crawler with one relay.
type testCrawler struct {
	*Crawler
	log        *fakeLog
	relay      *relay
	output     bytes.Buffer // of the logger
	mu         sync.Mutex
	introduced []float64 // seconds since start
	stop       func()
}

// start runs a Crawler in a synctest bubble.
func start(t *testing.T, once bool, statuses ...int) *testCrawler {
	w := &testCrawler{log: newLog(), relay: &relay{statuses: statuses, start: time.Now()}}
	c, err := New(Config{
		Hostname: "hold.example.com", Relays: []string{"https://relay.example.com"}, Once: once, Log: w.log,
		Introduce: func(context.Context) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.introduced = append(w.introduced, time.Since(w.relay.start).Seconds())
			return nil
		},
		Metrics: NewMetrics(),
		Logger:  slog.New(slog.NewTextHandler(&w.output, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	w.Crawler = c
	c.relays[0].client.Transport = w.relay
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	w.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	return w
}

// With Once, no request follows the accepted one, and the account is still introduced to
// a new subscriber.
func TestOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t, true, 503, 200)
		defer w.stop()
		time.Sleep(time.Minute)
		w.Joined(true)
		for range 5 {
			time.Sleep(time.Hour)
			w.log.next()
		}
		if got := w.relay.received(); len(got) != 2 || !strings.HasSuffix(got[1], " requestCrawl") {
			t.Errorf("requests %q, want one that failed and one that was accepted", got)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.introduced) != 1 {
			t.Errorf("introduced at %v, want once", w.introduced)
		}
	})
}

// Requests are sent at start, and then at the first event after requestInterval.
func TestRequests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t, false, 200)
		defer w.stop()
		time.Sleep(time.Minute)
		for range 5 {
			w.log.next()
			time.Sleep(time.Minute)
		}
		time.Sleep(10 * time.Hour) // without further events
		w.log.next()
		time.Sleep(10 * time.Hour)
		synctest.Wait()
		want := "[5 requestCrawl 1205 requestCrawl 36360 requestCrawl]"
		if got := fmt.Sprint(w.relay.received()); got != want {
			t.Errorf("requests %s, want %s", got, want)
		}
		if n := testutil.ToFloat64(w.cfg.Metrics.requests.WithLabelValues("accepted")); n != 3 {
			t.Errorf("%v accepted requests counted, want 3", n)
		}
		if n := strings.Count(w.output.String(), "relay accepted the crawl request"); n != 1 {
			t.Errorf("logged %d times, want once: %s", n, w.output.String())
		}
	})
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t, false, 0, 500, 400, 400, 400, 400, 400, 400, 400, 400, 400, 400, 200)
		defer w.stop()
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		requests := w.relay.received()
		if len(requests) != 13 {
			t.Fatalf("requests %v, want 13", requests)
		}
		var last float64
		for i, line := range requests {
			var at float64
			if _, err := fmt.Sscan(line, &at); err != nil {
				t.Fatal(err)
			}
			if i > 0 {
				if least := min(10*float64(int(1)<<(i-1)), 3600); at-last < least-1 || at-last > least*1.25+1 {
					t.Errorf("request %d after %.0f s, want about %.0f", i, at-last, least)
				}
			}
			last = at
		}
		if logged := w.output.String(); !strings.Contains(logged, "no route") || !strings.Contains(logged, "status 400: Nope: not you") || !strings.Contains(logged, "failures=12") {
			t.Errorf("log: %s", logged)
		}
		if n := testutil.ToFloat64(w.cfg.Metrics.requests.WithLabelValues("failed")); n != 12 {
			t.Errorf("%v failed requests counted, want 12", n)
		}
	})
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t, false, 429, 200)
		defer w.stop()
		w.relay.mu.Lock()
		w.relay.retryAfter = "7000"
		w.relay.mu.Unlock()
		time.Sleep(3 * time.Hour)
		if got := fmt.Sprint(w.relay.received()); got != "[5 requestCrawl 7005 requestCrawl]" {
			t.Errorf("requests %s", got)
		}
	})
}

// A relay without requestCrawl gets notifyOfUpdate.
func TestNotifyOfUpdate(t *testing.T) {
	t.Parallel()
	for _, status := range []int{404, 405, 501} {
		synctest.Test(t, func(t *testing.T) {
			w := start(t, false, status, 200)
			defer w.stop()
			time.Sleep(time.Hour)
			if got := fmt.Sprint(w.relay.received()); got != "[5 requestCrawl 5 notifyOfUpdate]" {
				t.Errorf("%d: requests %s", status, got)
			}
		})
	}
}

// A subscriber without a cursor soon after a request may be a relay that does not know
// the account. Several of them share an introduction.
func TestIntroduce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t, false, 200)
		defer w.stop()
		w.Joined(true) // before the request
		time.Sleep(4 * time.Second)
		w.Joined(true)
		time.Sleep(2 * time.Second) // 6: the request was at 5
		w.Joined(false)
		time.Sleep(2 * time.Second) // 8
		w.Joined(true)
		w.Joined(true)
		time.Sleep(500 * time.Millisecond)
		w.Joined(true)
		time.Sleep(10 * time.Second) // 18.5
		w.Joined(true)
		w.Joined(true)
		time.Sleep(9 * time.Minute)
		w.Joined(true) // at 558.5, still within ten minutes
		time.Sleep(time.Hour)
		w.Joined(true) // after the ten minutes
		time.Sleep(time.Hour)
		w.mu.Lock()
		defer w.mu.Unlock()
		if got := fmt.Sprint(w.introduced); got != "[9 70 559.5]" {
			t.Errorf("introduced at %s s, want [9 70 559.5]", got)
		}
	})
}

// A relay's name must not resolve to an internal address, and its redirects are not
// followed.
func TestGuard(t *testing.T) {
	t.Parallel()
	internal := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/secret" {
			t.Error("the redirect was followed")
		}
		http.Redirect(w, r, "/secret", http.StatusTemporaryRedirect)
	}))
	defer internal.Close()

	local, err := newRelayClient(strings.Replace(internal.URL, "127.0.0.1", "localhost", 1), "hold.example.com")
	if err != nil {
		t.Fatal(err)
	}
	var redirect *guard.Error
	if err := local.crawl(t.Context()); !errors.As(err, &redirect) || redirect.Status != http.StatusTemporaryRedirect {
		t.Errorf("relay on loopback: %v", err)
	}

	public, err := newRelayClient("https://relay.example.com", "hold.example.com")
	if err != nil {
		t.Fatal(err)
	}
	public.url = local.url // as if its name resolved to loopback
	if err := public.crawl(t.Context()); err == nil || !strings.Contains(err.Error(), "is not a public address") {
		t.Errorf("name that resolves to loopback: %v", err)
	}
}
