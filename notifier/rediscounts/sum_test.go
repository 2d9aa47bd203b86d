package rediscounts

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/rediscounts/redistest"
)

// TestSum has the counts of three registry ids, of which one is removed.
func TestSum(t *testing.T) {
	t.Parallel()
	d := New(redistest.Start(t).Client(), "")
	now := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	today := counts.DayOf(now)
	at := func(r counts.Row, position uint64) counts.Row { r.Position = position; return r }
	for id, record := range map[string]Record{"a": {Call: "1"}, "b": {Call: "1"}, "gone": {Call: "1", Removed: true}} {
		total := at(row(counts.Pull, 3), 150)
		total.LastPull = now.Add(-time.Hour).UnixMilli()
		if id == "b" {
			total.LastPull = now.Add(-time.Minute).UnixMilli()
		}
		_, err := d.Write(t.Context(), id, "", record, []Change{
			d.change(id, counts.OfRepository("x"), total), d.change(id, counts.OfDay("x", today), row(counts.Pull, 2)),
			d.change(id, counts.OfDay("x", today-2), row(counts.Pull, 1)),
			d.change(id, counts.OfTag("x", "v1"), at(row(counts.Pull, 1), 1)), d.change(id, counts.OfTag("x", "v2"), at(row(counts.Pull, 2), 150)),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	s := &Sum{DB: d, Now: func() time.Time { return now }}
	pulls := func(n int64) map[counts.Class]int64 { return map[counts.Class]int64{counts.Pull: n} }
	want := counts.Totals{Name: "x", Counts: pulls(6), LastPull: now.Add(-time.Minute)}
	if got, err := s.Repositories(t.Context()); err != nil || !reflect.DeepEqual(got, []counts.Totals{want}) {
		t.Errorf("repositories %+v, %v; want %+v", got, err, want)
	}
	got, tags, found, err := s.Repository(t.Context(), "x")
	if err != nil || !found || !reflect.DeepEqual(got, want) {
		t.Errorf("repository %+v, %v, %v; want %+v", got, found, err, want)
	}
	if want := map[string]map[counts.Class]int64{"v1": pulls(2), "v2": pulls(4)}; !reflect.DeepEqual(tags, want) {
		t.Errorf("tags %v, want %v", tags, want)
	}
	if _, _, found, err := s.Repository(t.Context(), "y"); found || err != nil {
		t.Errorf("an unknown repository: %v, %v", found, err)
	}
	days := []counts.Day{{Date: "2026-03-02", Counts: pulls(2)}, {Date: "2026-03-03", Counts: map[counts.Class]int64{}}, {Date: "2026-03-04", Counts: pulls(4)}}
	if got, err := s.Daily(t.Context(), "x", 3); err != nil || !reflect.DeepEqual(got, days) {
		t.Errorf("days %v, %v; want %v", got, err, days)
	}

	// The records are checked before and after a read.
	calls, lost := 0, errors.New("lost")
	s.Check = func(records map[string]string) error {
		if calls++; calls%2 == 0 {
			return lost
		}
		return nil
	}
	if _, err := s.Repositories(t.Context()); !errors.Is(err, lost) || calls != 2 {
		t.Errorf("Repositories = %v after %d checks, want the error of the second", err, calls)
	}
}
