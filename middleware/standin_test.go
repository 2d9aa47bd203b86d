package middleware

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier"
	"github.com/tidings-dev/tidings/notifier/journal"
)

// What can pass without a restart, and what can't.
func TestMarkNoRoom(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		err  error
		room bool
		says string
	}{
		{fmt.Errorf("open state: %w", store.ErrNoSpace), true, "the disk is full"},
		{fmt.Errorf("open journal: %w: %w", journal.ErrFull, syscall.ENOSPC), true, "the disk is full"},
		{fmt.Errorf("write: %w", syscall.ENOSPC), true, "the disk is full"},
		{fmt.Errorf("write: %w", syscall.EDQUOT), true, "the disk quota is exceeded"},
		{fmt.Errorf("lock: %w", syscall.EROFS), true, "the disk is read-only"},
		{fmt.Errorf("open: %w", syscall.EACCES), false, ""},
		{fmt.Errorf("open: %w", syscall.EIO), false, ""},
		{&journal.CorruptError{Reason: "x"}, false, ""},
		{ErrInUse, false, ""},
	} {
		err := markNoRoom(tc.err)
		if isNoRoom(err) != tc.room || !errors.Is(err, tc.err) {
			t.Errorf("%v: %v, want %v", tc.err, isNoRoom(err), tc.room)
		}
		if tc.room && diskProblem(err) != tc.says {
			t.Errorf("%v: says %q, want %q", tc.err, diskProblem(err), tc.says)
		}
		// The error of closing what was open is beside it.
		if joined := errors.Join(err, syscall.ENOSPC); isNoRoom(joined) != tc.room {
			t.Errorf("%v, joined: %v, want %v", tc.err, isNoRoom(joined), tc.room)
		}
	}
}

// The pauses between attempts: two seconds, then longer up to a minute, whatever
// the errors are, and none once it is open.
func TestOpenLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		var at []time.Duration
		openLater(t.Context(), slog.New(slog.DiscardHandler), "it", func(context.Context) error {
			at = append(at, time.Since(begun))
			if len(at) < 8 {
				return errors.New("still not")
			}
			return nil
		})
		const s = time.Second
		if want := []time.Duration{2 * s, 6 * s, 14 * s, 30 * s, 62 * s, 122 * s, 182 * s, 242 * s}; fmt.Sprint(at) != fmt.Sprint(want) {
			t.Errorf("it was tried at %v, want %v", at, want)
		}
	})
}

// Whatever the order of closing and opening, what was opened is closed, once.
func TestStandInCloses(t *testing.T) {
	t.Parallel()
	for name, wait := range map[string]time.Duration{"before it is open": time.Second, "while it opens": 3 * time.Second, "after it is open": time.Minute} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				open, closed := 0, 0
				s := &standIn{problem: "the disk is full", events: notifier.NewMetrics()}
				end := s.openLater(slog.New(slog.DiscardHandler), func(ctx context.Context) (parts, error) {
					time.Sleep(2 * time.Second) // it doesn't hear of ctx in time
					open++
					return parts{recorder: &fakeRecorder{}, close: func(context.Context) error { closed++; return nil }}, nil
				})
				time.Sleep(wait)
				if err := end(t.Context()); err != nil {
					t.Error(err)
				}
				if open != closed {
					t.Errorf("opened %d times, closed %d times", open, closed)
				}
			})
		})
	}
}

// A route is the stand-in's until the parts are open, and then theirs.
func TestLateRoute(t *testing.T) {
	t.Parallel()
	s := &standIn{problem: "the disk is full", events: notifier.NewMetrics()}
	h, err := start(minimalConfig(""), parts{recorder: s, metrics: NewMetrics(prometheus.NewRegistry()),
		mounts: []mount{{"/late", &lateRoute{s, "/late", http.HandlerFunc(s.unavailable)}}, {"/gone", &lateRoute{s, "/gone", http.HandlerFunc(s.unavailable)}}}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close(context.Background())
	wrapped := h.Wrap(respondWith("registry"))
	if got := get(t, wrapped, "/late"); got.Code != http.StatusServiceUnavailable || got.Header().Get("Retry-After") == "" {
		t.Errorf("before: %d %s", got.Code, got.Body)
	}
	if got := get(t, wrapped, "/v2/"); got.Body.String() != "registry" {
		t.Errorf("the registry: %s", got.Body)
	}
	rec := &fakeRecorder{}
	s.opened.Store(&parts{recorder: rec, mounts: []mount{{"/late", respondWith("opened")}}})
	if got := get(t, wrapped, "/late"); got.Body.String() != "opened" {
		t.Errorf("after: %d %s", got.Code, got.Body)
	}
	if got := get(t, wrapped, "/gone"); got.Code != http.StatusServiceUnavailable {
		t.Errorf("a route that the parts don't have: %d", got.Code)
	}
	s.Pull(notifier.Pull{Method: "GET", Repository: "app"})
	if _, err := s.Intend(t.Context(), notifier.Push{Repository: "app"}); err != nil {
		t.Error(err)
	}
	del, err := s.IntendDelete(t.Context(), notifier.Delete{Repository: "app"})
	if err == nil {
		err = del.Complete(t.Context())
	}
	if err != nil {
		t.Error(err)
	}
	if got := len(rec.take()); got != 3 {
		t.Errorf("the parts heard %d events, want 3", got)
	}
}
