package pds

import (
	"errors"
	"net/http"
	"testing"
	"time"
)

// With 300 points an hour, urgent writes go on while others wait, and a backlog
// ends as soon as the budget allows it.
func TestBudget(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.cfg.Budget = Budget{Hour: 300, Day: -1}
	r.reopen()
	const calls = 60 // of 5 creates, 15 points: 900 points
	done, posts, begun := 0, 0, r.now
	for done < calls {
		if r.now.Sub(begun) > 12*time.Hour {
			t.Fatalf("%d of %d calls in 12 hours", done, calls)
		}
		err := r.apply(5)
		if err == nil {
			done++
			continue
		}
		var e *Error
		if !errors.As(err, &e) || e.Outcome != Limited || !e.Until.After(r.now) {
			t.Fatalf("got %v", err)
		}
		if _, err := r.Apply(t.Context(), layers(1), nil, Urgent); err == nil {
			posts++
		} else {
			t.Errorf("an urgent write at %s: %v", r.now.Sub(begun), err)
		}
		r.now = e.Until
		r.reopen()
	}
	// 270 points an hour for what is not urgent: 18 calls at once, and so on.
	if took := r.now.Sub(begun); took < 3*time.Hour || took > 3*time.Hour+30*time.Minute {
		t.Errorf("the backlog took %s", took)
	}
	if posts == 0 {
		t.Error("nothing urgent was written")
	}
	if n := r.server.called(applyWrites); n != calls+posts {
		t.Errorf("%d calls, want %d", n, calls+posts)
	}
}

// Background writes use a fifth of the points at most, also across restarts, and
// leave the rest to others. When their share is free again they go on.
func TestBackgroundShare(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.cfg.Budget = Budget{Hour: 300, Day: 600}
	r.reopen()
	var e *Error
	if _, err := r.Apply(t.Context(), layers(21), nil, Background); !errors.As(err, &e) || e.Outcome != TooLarge {
		t.Errorf("63 points, and the share of an hour is 60: %v", err)
	}
	began := r.now
	write := func() (creates int) {
		t.Helper()
		for {
			n := r.Fit(layers(8), Background)
			if n < 8 {
				if _, err := r.Apply(t.Context(), layers(n+1), nil, Background); !errors.As(err, &e) || e.Outcome != Limited || !e.Until.After(r.now) {
					t.Fatalf("%d writes, and %d fit: %v", n+1, n, err)
				}
			}
			if n == 0 {
				return creates
			}
			if _, err := r.Apply(t.Context(), layers(n), nil, Background); err != nil {
				t.Fatal(err)
			}
			creates += n
			r.reopen()
		}
	}
	for hour, want := range []int{20, 20, 0, 0} { // 60 points an hour, 120 a day
		if hour > 0 {
			r.now = began.Add(time.Duration(hour) * 65 * time.Minute)
		}
		if got := write(); got != want {
			t.Errorf("hour %d: %d creates, want %d", hour, got, want)
		}
	}
	r.now = began.Add(24*time.Hour + bucket)
	if got := write(); got != 20 {
		t.Errorf("a day later: %d creates, want 20", got)
	}
	if err := r.apply(70); err != nil { // 210 more of the 270 points of an hour
		t.Errorf("a normal write: %v", err)
	}
	r.now = r.now.Add(72 * time.Hour)
	if err := r.apply(89); err != nil {
		t.Fatal(err)
	}
	if n := r.Fit(layers(5), Background); n != 1 {
		t.Errorf("%d background writes fit although others have left 3 points", n)
	}
}

// What the service says goes over our own arithmetic.
func TestServiceLimits(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	header := func(w http.ResponseWriter, policy, left string) {
		w.Header().Set("RateLimit-Policy", policy)
		w.Header().Set("RateLimit-Remaining", left)
	}
	answer := func(policy, left string) http.HandlerFunc {
		return func(w http.ResponseWriter, q *http.Request) {
			header(w, policy, left)
			r.server.mu.Lock()
			defer r.server.mu.Unlock()
			r.server.apply(w, q)
		}
	}
	r.server.on(applyWrites, answer("3000;w=300", "1")) // about requests
	if err := r.apply(1); err != nil {
		t.Fatal(err)
	}
	if got := r.Status().Budget; got.HourLeft != 4997 || got.DayLeft != 34997 {
		t.Errorf("after 3 points: %+v", got)
	}
	r.server.on(applyWrites, answer("5000;w=3600", "510"))
	if err := r.apply(1); err != nil {
		t.Fatal(err)
	}
	if got := r.Status().Budget; got.HourLeft != 510 {
		t.Errorf("after the service said 510: %+v", got)
	}
	var e *Error
	if err := r.apply(10); !errors.As(err, &e) || e.Outcome != Limited {
		t.Errorf("10 creates with 510 points, of which 500 are for urgent writes: %v", err)
	}
	r.server.on(applyWrites, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "1234")
		refuse(w, 429, "RateLimitExceeded", "Rate Limit Exceeded")
	})
	if err := r.apply(1); !errors.As(err, &e) || e.Outcome != Limited || !e.Until.Equal(r.now.Add(1234*time.Second)) {
		t.Errorf("got %v", err)
	}
	before := r.server.called(applyWrites)
	r.reopen()
	r.now = r.now.Add(1233 * time.Second)
	if err := r.apply(1); !errors.As(err, &e) || e.Outcome != Limited || r.server.called(applyWrites) != before {
		t.Errorf("before the time that the service named: %v", err)
	}
	r.server.on(applyWrites, nil)
	r.now = r.now.Add(2 * time.Hour)
	if err := r.apply(1); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// A clock that was ahead does not stop writes for longer than a day.
func TestBudgetAfterClockJump(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.cfg.Budget = Budget{Hour: 30}
	r.now = r.now.AddDate(1, 0, 0)
	r.reopen()
	if err := r.apply(9); err != nil {
		t.Fatal(err)
	}
	r.now = r.now.AddDate(-1, 0, 0)
	var e *Error
	if err := r.apply(1); !errors.As(err, &e) || e.Outcome != Limited || e.Until.Sub(r.now) > 65*time.Minute {
		t.Errorf("got %v", err)
	}
	r.now = e.Until
	if err := r.apply(1); err != nil {
		t.Error(err)
	}
}

func TestRetryAt(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		after, reset string
		want         time.Duration
	}{
		{"", "", limitedFor},
		{"60", "", time.Minute},
		{"Sun, 01 Nov 2026 12:02:00 GMT", "", 2 * time.Minute},
		{"60", "1793534580", 3 * time.Minute},
		{"-5", "x", limitedFor},
		{"999999999", "", maxLimited},
		{"Sun, 01 Nov 2020 12:02:00 GMT", "", limitedFor},
	} {
		h := http.Header{}
		h.Set("Retry-After", c.after)
		h.Set("RateLimit-Reset", c.reset)
		if got := retryAt(h, now).Sub(now); got != c.want {
			t.Errorf("Retry-After %q, reset %q: got %s, want %s", c.after, c.reset, got, c.want)
		}
	}
}

func TestForecast(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		budget Budget
		points int
		want   time.Duration // at most one bucket more
	}{
		"fits":         {Budget{Hour: 300}, 270, 0},
		"next hour":    {Budget{Hour: 300}, 271, time.Hour},
		"ten hours":    {Budget{Hour: 300}, 2_700, 9 * time.Hour},
		"day":          {Budget{Hour: 1_000, Day: 1_000}, 901, 24 * time.Hour},
		"no limit":     {Budget{Hour: NoLimit, Day: NoLimit}, 1_000_000, 0},
		"far too many": {Budget{Hour: 100}, 1_000_000, maxForecast},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.cfg.Budget = c.budget
			r.reopen()
			got := r.Forecast(c.points).Sub(r.now)
			if got < c.want || got > c.want+10*bucket {
				t.Errorf("%d points are spent in %s, want %s", c.points, got, c.want)
			}
		})
	}
}

// Points that urgent writes did not get are kept free for them.
func TestUrgentFirst(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.cfg.Budget = Budget{Hour: 300, Day: NoLimit}
	r.reopen()
	if err := r.apply(90); err != nil { // all of the normal points
		t.Fatal(err)
	}
	if n := r.Fit(layers(60), Urgent); n != 10 {
		t.Fatalf("%d urgent writes fit, want 10", n)
	}
	if _, err := r.Apply(t.Context(), layers(10), nil, Urgent); err != nil {
		t.Fatal(err)
	}
	r.now = r.now.Add(time.Hour + bucket - time.Minute)
	if n := r.Fit(layers(50), Urgent); n != 0 {
		t.Fatalf("%d urgent writes fit, want none", n)
	}
	r.now = r.now.Add(time.Minute)
	if n := r.Fit(layers(100), Normal); n != 50 {
		t.Errorf("%d normal writes fit beside 50 urgent ones, want 50", n)
	}
	r.now = r.now.Add(pendingFor)
	if n := r.Fit(layers(100), Normal); n != 90 {
		t.Errorf("%d normal writes fit, want 90", n)
	}
}
