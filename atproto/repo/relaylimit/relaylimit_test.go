package relaylimit

import (
	"testing"
	"time"
)

// A writer that always has something to write stays within each limit, and is not
// slower than necessary.
func TestRate(t *testing.T) {
	t.Parallel()
	r := New()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	begin := now
	if delay := r.Delay(now); delay > 0 {
		t.Errorf("the first event is delayed by %s", delay)
	}
	var events []time.Time
	for now.Before(begin.Add(3 * 24 * time.Hour)) {
		if delay := r.Delay(now); delay > 0 {
			now = now.Add(delay)
		}
		r.Add(now)
		events = append(events, now)
		now = now.Add(time.Millisecond) // the minimum that a commit takes
	}
	for _, l := range limits {
		most, from := 0, 0
		for i, at := range events {
			for at.Sub(events[from]) >= l.window {
				from++
			}
			most = max(most, i-from+1)
		}
		if most > l.events {
			t.Errorf("%d events in %s, want at most %d", most, l.window, l.events)
		}
		if most < l.events/2 {
			t.Errorf("at most %d events in %s, want %d or more", most, l.window, l.events/2)
		}
	}
	if perDay := len(events) / 3; perDay < 10_000 {
		t.Errorf("%d events a day", perDay)
	}
	if delay := r.Delay(now.Add(25 * time.Hour)); delay > 0 {
		t.Errorf("delayed by %s after a day without events", delay)
	}
}
