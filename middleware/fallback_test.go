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

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/middleware/datafolder"
	"github.com/tidings-dev/tidings/notifier"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/sink"
)

// Errors of full and read-only disks are recognized, and described without file names.
func TestMarkUnwritable(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		err        error
		unwritable bool
		problem    string
	}{
		{fmt.Errorf("open state: %w", store.ErrNoSpace), true, "the disk is full"},
		{fmt.Errorf("open journal: %w: %w", journal.ErrFull, syscall.ENOSPC), true, "the disk is full"},
		{fmt.Errorf("write: %w", syscall.ENOSPC), true, "the disk is full"},
		{fmt.Errorf("write: %w", syscall.EDQUOT), true, "the disk quota is exceeded"},
		{fmt.Errorf("lock: %w", syscall.EROFS), true, "the disk is read-only"},
		{fmt.Errorf("open: %w", syscall.EACCES), false, ""},
		{fmt.Errorf("open: %w", syscall.EIO), false, ""},
		{&journal.CorruptError{Reason: "x"}, false, ""},
		{datafolder.ErrInUse, false, ""},
	} {
		err := markUnwritable(tc.err)
		if isUnwritable(err) != tc.unwritable || !errors.Is(err, tc.err) {
			t.Errorf("%v: %v, want %v", tc.err, isUnwritable(err), tc.unwritable)
		}
		if tc.unwritable && diskProblem(err) != tc.problem {
			t.Errorf("%v: got %q, want %q", tc.err, diskProblem(err), tc.problem)
		}
		// Errors of closing the parts are joined to it and do not matter.
		if joined := errors.Join(err, syscall.ENOSPC); isUnwritable(joined) != tc.unwritable {
			t.Errorf("%v, joined: %v, want %v", tc.err, isUnwritable(joined), tc.unwritable)
		}
	}
}

// The pauses between attempts start with two seconds and double up to a minute. There
// is no attempt after a success.
func TestOpenLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		var at []time.Duration
		openLater(t.Context(), slog.New(slog.DiscardHandler), "the test", func(context.Context) error {
			at = append(at, time.Since(begun))
			if len(at) < 8 {
				return errors.New("not yet")
			}
			return nil
		})
		const s = time.Second
		if want := []time.Duration{2 * s, 6 * s, 14 * s, 30 * s, 62 * s, 122 * s, 182 * s, 242 * s}; fmt.Sprint(at) != fmt.Sprint(want) {
			t.Errorf("attempts at %v, want %v", at, want)
		}
	})
}

// Parts that were opened are closed exactly once, also if they are opened during the
// close.
func TestFallbackCloses(t *testing.T) {
	t.Parallel()
	for name, wait := range map[string]time.Duration{"before the first attempt": time.Second, "during an attempt": 3 * time.Second, "after the open": time.Minute} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				open, closed := 0, 0
				s := &fallback{problem: "the disk is full", events: sink.NewMetrics()}
				end := s.openLater(slog.New(slog.DiscardHandler), func(ctx context.Context) (parts, error) {
					time.Sleep(2 * time.Second) // does not observe ctx
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

// A route is served by the fallback until the parts are open, and then by them.
func TestFallbackRoute(t *testing.T) {
	t.Parallel()
	s := &fallback{problem: "the disk is full", events: sink.NewMetrics()}
	h, err := start(minimalConfig(""), parts{recorder: s, metrics: NewMetrics(),
		mounts: []mount{{"/late", &fallbackRoute{s, "/late", http.HandlerFunc(s.unavailable)}}, {"/gone", &fallbackRoute{s, "/gone", http.HandlerFunc(s.unavailable)}}}})
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
	s.opened.Store(&parts{recorder: rec, mounts: []mount{{"/late", respondWith("parts")}}})
	if got := get(t, wrapped, "/late"); got.Body.String() != "parts" {
		t.Errorf("after: %d %s", got.Code, got.Body)
	}
	if got := get(t, wrapped, "/gone"); got.Code != http.StatusServiceUnavailable {
		t.Errorf("a route that the parts do not have: %d", got.Code)
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
		t.Errorf("the parts recorded %d events, want 3", got)
	}
}
