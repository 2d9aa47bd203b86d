package admin

import (
	"net/url"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/notifier"
)

func parseQuery(t *testing.T, text string) url.Values {
	t.Helper()
	query, err := url.ParseQuery(text)
	if err != nil {
		t.Fatal(err)
	}
	return query
}

// The end is estimated from how fast the backlog shrinks, and only if it does.
func TestRates(t *testing.T) {
	t.Parallel()
	start := time.Unix(1000, 0)
	for name, test := range map[string]struct {
		done, last uint64 // 10 s after 100 of 1000
		rate       float64
		ends       time.Time
	}{
		"shrinks": {300, 1100, 20, start.Add(90 * time.Second)},
		"grows":   {110, 2000, 1, time.Time{}},
		"stands":  {100, 1000, 0, time.Time{}},
		"empty":   {1000, 1000, 90, time.Time{}},
		"is back": {50, 1000, 0, time.Time{}},
	} {
		now, p := start, notifier.Position{Stream: "pushes", Sink: "records", Done: 100, Last: 1000}
		r := NewRates(func() []notifier.Position { return []notifier.Position{p} }, func() time.Time { return now })
		r.sample()
		now, p.Done, p.Last = start.Add(10*time.Second), test.done, test.last
		rate, ends := r.Of("pushes", "records")
		if rate != test.rate || !ends.Equal(test.ends) {
			t.Errorf("%s: %v until %v, want %v until %v", name, rate, ends, test.rate, test.ends)
		}
		if rate, ends := r.Of("pulls", "records"); rate != 0 || !ends.IsZero() {
			t.Errorf("%s: an unknown sink has %v until %v", name, rate, ends)
		}
	}
}
