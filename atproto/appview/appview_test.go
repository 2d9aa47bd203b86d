package appview

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// network is an AppView, and the account's repo.
type network struct {
	mu      sync.Mutex
	begun   time.Time
	indexes bool              // each post at once
	has     map[string]bool   // posts that are indexed anyway
	answer  http.RoundTripper // in place of its own; nil: none
	asked   []time.Duration   // when it was asked, since the start
	uris    [][]string        // of each request
	repo    []Post            // the account's, oldest first
	broken  bool              // the repo cannot be read
	reads   int               // of the repo
	last    *syntax.TIDClock  // of keys
	posted  func(string, time.Time)
}

func (n *network) RoundTrip(req *http.Request) (*http.Response, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	uris := req.URL.Query()["uris"]
	n.asked, n.uris = append(n.asked, time.Since(n.begun)), append(n.uris, uris)
	if n.answer != nil {
		return n.answer.RoundTrip(req)
	}
	posts := []map[string]string{}
	for _, uri := range uris {
		if n.indexes || n.has[uri] {
			posts = append(posts, map[string]string{"uri": uri})
		}
	}
	body, err := json.Marshal(map[string]any{"posts": posts})
	return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(string(body)))}, err
}

func (n *network) newest(_ context.Context, limit int) ([]Post, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.reads++
	if n.broken {
		return nil, errors.New("no disk")
	}
	list := slices.Clone(n.repo)
	slices.Reverse(list)
	return list[:min(limit, len(list))], nil
}

// write writes a post to the repo without reporting it.
func (n *network) write() Post {
	post := Post{"at://did:web:hold.example.com/app.bsky.feed.post/" + n.last.Next().String(), time.Now()}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.repo = append(n.repo, post)
	return post
}

// post writes a post and reports it.
func (n *network) post() string {
	post := n.write()
	n.posted(post.URI, time.Now())
	return post.URI
}

// set changes what the network answers.
func (n *network) set(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
}

// requests returns when the AppView was asked since the last call, in seconds since the
// start.
func (n *network) requests() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var at []int
	for _, d := range n.asked {
		at = append(at, int(d.Seconds()))
	}
	n.asked = nil
	return fmt.Sprint(at)
}

// requested returns the URIs of each request.
func (n *network) requested() [][]string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.uris)
}

// count returns a number of the network.
func (n *network) count(of func() int) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return of()
}

// run runs a test in a bubble, where time passes only while nobody works. before runs
// before the Watcher.
func run(t *testing.T, before func(*network), test func(*Watcher, *network)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := &network{begun: time.Now(), has: map[string]bool{}, last: syntax.NewTIDClock(0)}
		w, err := New(Config{AppView: Public, Newest: n.newest, Metrics: NewMetrics()})
		if err != nil {
			t.Fatal(err)
		}
		w.client.Transport, n.posted = n, w.Posted
		if before != nil {
			before(n)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()
		synctest.Wait()
		test(w, n)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// expect compares the state and the number of missing posts.
func expect(t *testing.T, w *Watcher, state State, missing int) Status {
	t.Helper()
	got, ok := w.Status()
	if !ok || got.AppView != "public.api.bsky.app" || got.State != state || got.Missing != missing || (got.Reason == "") != (state == "" || state == StateCurrent) {
		t.Errorf("got %+v, want %q with %d missing", got, state, missing)
	}
	if metric := testutil.ToFloat64(w.cfg.Metrics.missing); metric != float64(missing) {
		t.Errorf("the metric is %v, want %d", metric, missing)
	}
	return got
}

// delays returns the number and the sum of the delays that were recorded.
func delays(t *testing.T, w *Watcher) (uint64, time.Duration) {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(w.cfg.Metrics.delay)
	got, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	histogram := got[0].GetMetric()[0].GetHistogram()
	return histogram.GetSampleCount(), time.Duration(histogram.GetSampleSum()) * time.Second
}

func TestIndexed(t *testing.T) {
	run(t, nil, func(w *Watcher, n *network) {
		n.set(func() { n.indexes = true })
		time.Sleep(24 * time.Hour)
		expect(t, w, "", 0)
		if got := n.requests(); got != "[]" {
			t.Errorf("without posts it was asked at %s", got)
		}
		n.post()
		time.Sleep(24 * time.Hour)
		if got := expect(t, w, StateCurrent, 0); got.Delay != first {
			t.Errorf("the delay is %s, want %s", got.Delay, first)
		}
		if count, sum := delays(t, w); count != 1 || sum != first {
			t.Errorf("%d delays of %s in all", count, sum)
		}
		if got := n.requests(); got != "[86410]" {
			t.Errorf("it was asked at %s", got)
		}
		if reads := n.count(func() int { return n.reads }); reads != 1 {
			t.Errorf("the repo was read %d times", reads)
		}
	})
}

func TestManyPosts(t *testing.T) {
	run(t, nil, func(w *Watcher, n *network) {
		for range 200 {
			n.post()
		}
		time.Sleep(15 * time.Second)
		if got := n.requests(); got != "[10 10]" || len(n.requested()[0]) != 25 || len(n.requested()[1]) != 25 {
			t.Fatalf("it was asked at %s about %s", got, n.requested())
		}
		n.set(func() { n.indexes = true })
		for range 100 { // a post every 5 seconds
			time.Sleep(5 * time.Second)
			n.post()
		}
		for i, uris := range n.requested() {
			if len(uris) > 25 {
				t.Errorf("request %d was about %d posts", i, len(uris))
			}
		}
		if requests := len(n.requested()); requests > 4+500/30 {
			t.Errorf("%d requests", requests)
		}
		expect(t, w, StateCurrent, 0)
	})
}

// A post that is not indexed is asked for ever more rarely. It is reported after 10
// minutes, and the report ends once the post is indexed.
func TestMissingPost(t *testing.T) {
	run(t, nil, func(w *Watcher, n *network) {
		uri := n.post()
		time.Sleep(10*time.Minute + 15*time.Second)
		expect(t, w, StateCurrent, 0)
		time.Sleep(10 * time.Second)
		if got := expect(t, w, StateLagging, 1); !strings.Contains(got.Reason, uri) {
			t.Errorf("the reason is %q", got.Reason)
		}
		n.set(func() { n.has[uri] = true })
		time.Sleep(5 * time.Minute)
		if got := expect(t, w, StateCurrent, 0); got.Delay != 920*time.Second {
			t.Errorf("the delay is %s", got.Delay)
		}
		if got := n.requests(); got != "[10 40 80 160 320 620 920]" {
			t.Errorf("it was asked at %s", got)
		}
	})
}

// While posts are missing that are older than an hour, only the last is asked for, once an
// hour.
func TestOldMissingPosts(t *testing.T) {
	run(t, nil, func(w *Watcher, n *network) {
		n.post()
		time.Sleep(time.Minute)
		uri := n.post()
		time.Sleep(70 * time.Minute)
		expect(t, w, StateLagging, 1)
		n.requests()
		n.set(func() { n.uris = nil })
		time.Sleep(24 * time.Hour)
		expect(t, w, StateLagging, 1)
		if len(n.requested()) != 24 || slices.ContainsFunc(n.requested(), func(uris []string) bool { return len(uris) != 1 || uris[0] != uri }) {
			t.Errorf("in a day it was asked about %s", n.requested())
		}
		n.set(func() { n.has[uri] = true })
		time.Sleep(time.Hour)
		expect(t, w, StateCurrent, 0)
	})
}

// A post that is never indexed, although newer ones are, is forgotten after an hour.
func TestOnePostMissing(t *testing.T) {
	run(t, nil, func(w *Watcher, n *network) {
		n.post()
		time.Sleep(time.Second)
		newer := n.post()
		n.set(func() { n.has[newer] = true })
		time.Sleep(15 * time.Minute)
		expect(t, w, StateLagging, 1)
		time.Sleep(50 * time.Minute)
		expect(t, w, StateCurrent, 0)
		n.requests()
		time.Sleep(24 * time.Hour)
		if got := n.requests(); got != "[]" {
			t.Errorf("it was asked again at %s", got)
		}
	})
}

// After a pause, the first post is asked for as soon as usual, also while others are
// missing.
func TestPostWhileOthersAreMissing(t *testing.T) {
	run(t, nil, func(w *Watcher, n *network) {
		n.post()
		time.Sleep(12 * time.Hour)
		n.requests()
		uri := n.post()
		n.set(func() { n.has[uri] = true })
		time.Sleep(time.Minute)
		if got := n.requests(); got != "[43210]" {
			t.Errorf("it was asked at %s", got)
		}
		expect(t, w, StateCurrent, 0)
	})
}

func TestDeletedPost(t *testing.T) {
	run(t, nil, func(w *Watcher, n *network) {
		for range maxPosts {
			n.post()
		}
		var deleted Post
		n.set(func() { deleted = n.repo[len(n.repo)-2] })
		n.set(func() { n.repo = slices.DeleteFunc(n.repo, func(p Post) bool { return p == deleted }) })
		for range 20 { // so that the first posts are not among the newest
			n.write()
		}
		n.set(func() { n.broken = true })
		time.Sleep(12 * time.Minute)
		expect(t, w, StateLagging, maxPosts)
		n.set(func() { n.broken = false })
		time.Sleep(5 * time.Minute)
		expect(t, w, StateLagging, maxPosts-1)
		n.set(func() { n.repo = nil })
		time.Sleep(5 * time.Minute)
		expect(t, w, StateCurrent, 0)
		if slices.Contains(n.requested()[len(n.requested())-1], deleted.URI) {
			t.Error("the deleted post is still asked for")
		}
	})
}

// Posts that the repo has at the start are asked for if they are recent. It is not known
// when they were written.
func TestPostsAtTheStart(t *testing.T) {
	old, uri := Post{}, ""
	run(t, func(n *network) {
		n.broken = true
		old = n.write()
		time.Sleep(2 * time.Hour)
		n.write()
		time.Sleep(30 * time.Minute)
		uri = n.write().URI
	}, func(w *Watcher, n *network) {
		n.set(func() { n.broken, n.has[uri] = false, true })
		time.Sleep(9 * time.Minute)
		if len(n.requested()) == 0 || len(n.requested()[0]) != 2 || slices.Contains(n.requested()[0], old.URI) {
			t.Errorf("it was asked about %s", n.requested())
		}
		if got := expect(t, w, StateCurrent, 0); got.Delay != 0 {
			t.Errorf("the delay is %s", got.Delay)
		}
		if count, _ := delays(t, w); count != 0 {
			t.Error("a delay was recorded")
		}
		time.Sleep(7 * time.Minute)
		expect(t, w, StateLagging, 1)
		time.Sleep(24 * time.Hour)
		expect(t, w, StateCurrent, 0)
	})
}

// reply answers each request with a status, a header Retry-After and a body.
type reply struct {
	status int
	wait   string
	body   func(*http.Request) io.Reader
	read   int // bytes of all bodies
}

func (r *reply) RoundTrip(req *http.Request) (*http.Response, error) {
	if r.status == 0 {
		return nil, errors.New("no route")
	}
	header := http.Header{"Retry-After": {r.wait}, "Location": {"http://10.0.0.1/"}}
	return &http.Response{StatusCode: r.status, Header: header, Body: io.NopCloser(io.TeeReader(r.body(req), r))}, nil
}

func (r *reply) Write(p []byte) (int, error) {
	r.read += len(p)
	return len(p), nil
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// silent is a body that never ends and sends nothing.
type silent struct{ context.Context }

func (s silent) Read([]byte) (int, error) {
	<-s.Done()
	return 0, s.Err()
}

func TestFailures(t *testing.T) {
	t.Parallel()
	text := func(text string) func(*http.Request) io.Reader {
		return func(*http.Request) io.Reader { return strings.NewReader(text) }
	}
	large := func(*http.Request) io.Reader { return io.LimitReader(zeros{}, 64<<20) }
	never := func(req *http.Request) io.Reader { return silent{req.Context()} }
	for name, c := range map[string]struct {
		answer   reply
		reason   string // a part of it
		requests int    // in the first hour, at most
	}{
		"no connection":     {reply{}, "no route", 10},
		"unavailable":       {reply{status: 503, body: text("<html>")}, "status 503: <html>", 10},
		"not an AppView":    {reply{status: 404, body: text(`{"error":"MethodNotImplemented"}`)}, "MethodNotImplemented", 10},
		"too many requests": {reply{status: 429, wait: "1500", body: text(`{"error":"RateLimitExceeded"}`)}, "RateLimitExceeded", 3},
		"redirect":          {reply{status: 302, body: text("")}, "status 302", 10},
		"garbage":           {reply{status: 200, body: text("\x00\xff")}, "invalid answer", 10},
		"not a list":        {reply{status: 200, body: text(`{"posts":"many"}`)}, "invalid answer", 10},
		"without posts":     {reply{status: 200, body: text(`{}`)}, "invalid answer: it has no list of posts", 10},
		"null":              {reply{status: 200, body: text(`null`)}, "invalid answer", 10},
		"64 MiB":            {reply{status: 200, body: large}, "larger than 1024 KiB", 10},
		"error of 64 MiB":   {reply{status: 500, body: large}, "status 500", 10},
		"endless":           {reply{status: 200, body: never}, "deadline exceeded", 10},
		"endless error":     {reply{status: 500, body: never}, "deadline exceeded", 10},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(n *network) { n.answer = &c.answer }, func(w *Watcher, n *network) {
				uri := n.post()
				time.Sleep(30 * time.Second)
				expect(t, w, "", 0) // one failure is no state
				time.Sleep(time.Hour)
				got := expect(t, w, StateUnreachable, 0)
				if !strings.Contains(got.Reason, c.reason) || len(got.Reason) > 400 || strings.Contains(got.Reason, uri) {
					t.Errorf("the reason is %q", got.Reason)
				}
				if requests := n.count(func() int { return len(n.asked) }); requests < 3 || requests > c.requests {
					t.Errorf("asked %d times: %s", requests, n.requests())
				} else if perAnswer := c.answer.read / requests; perAnswer > maxAnswer+1 {
					t.Errorf("%d bytes of an answer were read", perAnswer)
				}
				if failed := testutil.ToFloat64(w.cfg.Metrics.requests.WithLabelValues("failed")); failed != float64(len(n.requested())) {
					t.Errorf("the metric counts %v failures, want %d", failed, len(n.requested()))
				}
				time.Sleep(2 * time.Hour)
				n.set(func() { n.answer, n.indexes = nil, true })
				time.Sleep(80 * time.Minute)
				expect(t, w, StateCurrent, 0)
			})
		})
	}
}

func TestRetryAfterIsObeyed(t *testing.T) {
	answer := &reply{status: 429, wait: "7200", body: func(*http.Request) io.Reader { return strings.NewReader("") }}
	run(t, func(n *network) { n.answer = answer }, func(_ *Watcher, n *network) {
		n.post()
		for range 119 { // new posts don't shorten it
			time.Sleep(time.Minute)
			n.post()
		}
		time.Sleep(2 * time.Minute)
		if got := n.requests(); got != "[10 7210]" {
			t.Errorf("it was asked at %s", got)
		}
	})
}

func TestNilWatcher(t *testing.T) {
	t.Parallel()
	var w *Watcher
	w.Posted("at://did:web:a.example.com/app.bsky.feed.post/3", time.Now())
	if _, ok := w.Status(); ok {
		t.Error("it has a status")
	}
	if err := w.Run(t.Context()); err != nil {
		t.Error(err)
	}
}
