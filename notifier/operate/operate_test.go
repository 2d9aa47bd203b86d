package operate

import (
	"testing"
	"time"

	"github.com/tidings-dev/tidings/notifier/journal"
)

// Before finds the last event before a time, by the order numbers of events.
func TestBefore(t *testing.T) {
	t.Parallel()
	j, err := journal.Open(journal.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	o := Operator{Journal: j}
	if got := o.Before(journal.Pushes, time.UnixMicro(20)); got != 0 {
		t.Errorf("in an empty journal: %d", got)
	}
	for _, order := range []uint64{10, 20, 20, 30} {
		if _, err := j.Append(t.Context(), journal.Pushes, order, []byte("event")); err != nil {
			t.Fatal(err)
		}
	}
	for micros, want := range map[int64]uint64{5: 0, 10: 0, 11: 1, 20: 1, 21: 3, 30: 3, 31: 4} {
		if got := o.Before(journal.Pushes, time.UnixMicro(micros)); got != want {
			t.Errorf("before %d: %d, want %d", micros, got, want)
		}
	}
}
