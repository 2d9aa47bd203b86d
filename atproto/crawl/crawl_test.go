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

// relay answers requests in place of the network, with the next of its
// answers and in the end always with the last.
type relay struct {
	mu      sync.Mutex
	answers []int // a status; 0: no answer
	wait    string
	asked   []string // "<seconds since start> <method>"
	begun   time.Time
}

func (r *relay) RoundTrip(req *http.Request) (*http.Response, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	body, _ := io.ReadAll(req.Body)
	nsid := req.URL.Path[strings.LastIndexByte(req.URL.Path, '.')+1:]
	r.asked = append(r.asked, fmt.Sprintf("%.0f %s", time.Since(r.begun).Seconds(), nsid))
	var said map[string]string
	if err := json.Unmarshal(body, &said); err != nil || len(said) != 1 || said["hostname"] != "hold.example.com" || req.Method != "POST" {
		return nil, fmt.Errorf("asked %s %s", req.Method, body)
	}
	status := r.answers[0]
	if len(r.answers) > 1 {
		r.answers = r.answers[1:]
	}
	if status == 0 {
		return nil, errors.New("no route")
	}
	head := http.Header{}
	if r.wait != "" {
		head.Set("Retry-After", r.wait)
	}
	return &http.Response{StatusCode: status, Header: head, Body: io.NopCloser(strings.NewReader(`{"error":"Nope","message":"not you"}`))}, nil
}

func (r *relay) heard() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.asked)
}

type world struct {
	*Crawler
	log        *fakeLog
	relay      *relay
	logged     bytes.Buffer
	mu         sync.Mutex
	introduced []float64 // seconds since start
	cancel     func()
}

// begin runs a Crawler in a bubble, where time passes only when nobody works.
func begin(t *testing.T, answers ...int) *world { return beginAs(t, Config{}, answers...) }

func beginAs(t *testing.T, cfg Config, answers ...int) *world {
	w := &world{log: newLog(), relay: &relay{answers: answers, begun: time.Now()}}
	c, err := New(Config{
		Hostname: "hold.example.com", Relays: []string{"https://relay.example.com"}, Once: cfg.Once, Log: w.log,
		Introduce: func(context.Context) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.introduced = append(w.introduced, time.Since(w.relay.begun).Seconds())
			return nil
		},
		Metrics: NewMetrics(),
		Logger:  slog.New(slog.NewTextHandler(&w.logged, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	w.Crawler = c
	c.relays[0].client.Transport = w.relay
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	w.cancel = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	return w
}

// Until it accepts, and no more; who joins then is introduced to.
func TestAsksOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := beginAs(t, Config{Once: true}, 503, 200)
		defer w.cancel()
		time.Sleep(time.Minute)
		w.Joined(true)
		for range 5 {
			time.Sleep(time.Hour)
			w.log.next()
		}
		if got := w.relay.heard(); len(got) != 2 || !strings.HasSuffix(got[1], " requestCrawl") {
			t.Errorf("asked %q, want twice: the first was refused", got)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.introduced) != 1 {
			t.Errorf("introduced at %v, want once", w.introduced)
		}
	})
}

// At start, and then only when there is something new, never within the silence.
func TestAsksAfterSilence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, 200)
		defer w.cancel()
		time.Sleep(time.Minute)
		for range 5 {
			w.log.next()
			time.Sleep(time.Minute)
		}
		time.Sleep(10 * time.Hour) // quiet but for those five
		w.log.next()
		time.Sleep(10 * time.Hour)
		synctest.Wait()
		want := "[5 requestCrawl 1205 requestCrawl 36360 requestCrawl]"
		if got := fmt.Sprint(w.relay.heard()); got != want {
			t.Errorf("asked %s, want %s", got, want)
		}
		if n := testutil.ToFloat64(w.cfg.Metrics.requests.WithLabelValues("accepted")); n != 3 {
			t.Errorf("%v accepted", n)
		}
		if n := strings.Count(w.logged.String(), "relay accepted the crawl request"); n != 1 {
			t.Errorf("told %d times: %s", n, w.logged.String())
		}
	})
}

func TestBacksOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, 0, 500, 400, 400, 400, 400, 400, 400, 400, 400, 400, 400, 200)
		defer w.cancel()
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		asked := w.relay.heard()
		if len(asked) != 13 {
			t.Fatalf("asked %v", asked)
		}
		var last float64
		for i, line := range asked {
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
		if logged := w.logged.String(); !strings.Contains(logged, "no route") || !strings.Contains(logged, "status 400: Nope: not you") || !strings.Contains(logged, "failures=12") {
			t.Errorf("logged %s", logged)
		}
		if n := testutil.ToFloat64(w.cfg.Metrics.requests.WithLabelValues("failed")); n != 12 {
			t.Errorf("%v failed", n)
		}
	})
}

func TestWaitsAsTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, 429, 200)
		defer w.cancel()
		w.relay.mu.Lock()
		w.relay.wait = "7000"
		w.relay.mu.Unlock()
		time.Sleep(3 * time.Hour)
		if got := fmt.Sprint(w.relay.heard()); got != "[5 requestCrawl 7005 requestCrawl]" {
			t.Errorf("asked %s", got)
		}
	})
}

func TestOlderRelay(t *testing.T) {
	t.Parallel()
	for _, status := range []int{404, 405, 501} {
		synctest.Test(t, func(t *testing.T) {
			w := begin(t, status, 200)
			defer w.cancel()
			time.Sleep(time.Hour)
			if got := fmt.Sprint(w.relay.heard()); got != "[5 requestCrawl 5 notifyOfUpdate]" {
				t.Errorf("%d: asked %s", status, got)
			}
		})
	}
}

// Who joins without a cursor soon after a request may be a relay that knows
// nothing; many of them at once get one introduction.
func TestIntroduces(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, 200)
		defer w.cancel()
		w.Joined(true) // before anybody was asked
		time.Sleep(4 * time.Second)
		w.Joined(true)
		time.Sleep(2 * time.Second) // 6: asked at 5
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
		w.Joined(true) // long after
		time.Sleep(time.Hour)
		w.mu.Lock()
		defer w.mu.Unlock()
		if got := fmt.Sprint(w.introduced); got != "[9 70 559.5]" {
			t.Errorf("introduced at %s s", got)
		}
	})
}

// A name that leads inside is not asked, and neither is where a relay sends us.
func TestGuard(t *testing.T) {
	t.Parallel()
	inside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/secret" {
			t.Error("the redirect was followed")
		}
		http.Redirect(w, r, "/secret", http.StatusTemporaryRedirect)
	}))
	defer inside.Close()

	local, err := newAsked(strings.Replace(inside.URL, "127.0.0.1", "localhost", 1), "hold.example.com")
	if err != nil {
		t.Fatal(err)
	}
	var no *guard.Error
	if err := local.crawl(t.Context()); !errors.As(err, &no) || no.Status != http.StatusTemporaryRedirect {
		t.Errorf("a relay on this machine: %v", err)
	}

	public, err := newAsked("https://relay.example.com", "hold.example.com")
	if err != nil {
		t.Fatal(err)
	}
	public.url = local.url // as if its name led here
	if err := public.crawl(t.Context()); err == nil || !strings.Contains(err.Error(), "is not a public address") {
		t.Errorf("a name that leads inside: %v", err)
	}
}
