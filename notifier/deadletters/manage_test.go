package deadletters

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/state"
)

// Letters are listed in pages, shown with their event, and dropped with what counts them.
func TestManage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db := openState(t, state.Config{Dir: dir})
	d := openLetters(db)
	for seq := uint64(1); seq <= 5; seq++ {
		if err := d.Add(journal.Pushes, "records", seq, "no", []byte(`{"v":1}`)); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Add(journal.Pushes, "records2", 1, "no", nil); err != nil {
		t.Fatal(err)
	}
	if err := d.Add(journal.Pulls, "records", 3, "no", nil); err != nil {
		t.Fatal(err)
	}
	list := func(sink string, limit int) (names []string) {
		t.Helper()
		for cursor, first := "", true; first || cursor != ""; first = false {
			page, next, err := d.List(sink, cursor, limit)
			if err != nil || len(page) > limit {
				t.Fatalf("%d letters, %v", len(page), err)
			}
			for _, l := range page {
				if l.Event != nil {
					t.Errorf("a list has the event of %d", l.First)
				}
				names = append(names, fmt.Sprint(l.Sink, " ", l.Stream, " ", l.First))
			}
			cursor = next
		}
		return names
	}
	of := []string{"records pushes 1", "records pushes 2", "records pushes 3", "records pushes 4", "records pushes 5", "records pulls 3"}
	for _, limit := range []int{1, 2, 3, 6, 7, 100} {
		if got := list("records", limit); !slices.Equal(got, of) {
			t.Errorf("limit %d: %q", limit, got)
		}
		if got := list("", limit); len(got) != 7 {
			t.Errorf("limit %d: %q", limit, got)
		}
	}
	if _, _, err := d.List("", "x!", 1); !errors.Is(err, ErrCursor) {
		t.Errorf("an invalid cursor: %v", err)
	}
	box := Box{"records", journal.Pushes}
	if l, err := d.Get(box, 3); err != nil || string(l.Event) != `{"v":1}` {
		t.Errorf("Get: %+v, %v", l, err)
	}
	if err := d.Drop(box, 3); err != nil {
		t.Fatal(err)
	}
	for _, d := range []*Store{d, openLetters(db)} {
		if _, err := d.Get(box, 3); !errors.Is(err, ErrNotFound) {
			t.Errorf("Get after Drop: %v", err)
		}
		if _, ok, err := d.Find(Box{Sink: "records", Stream: journal.Pushes}, 3); ok || err != nil {
			t.Errorf("Find after Drop: %v, %v", ok, err)
		}
		if _, ok, err := d.Find(Box{Sink: "records", Stream: journal.Pushes}, 4); !ok || err != nil {
			t.Errorf("Find of another: %v, %v", ok, err)
		}
		if n, err := letterCounts(d); err != nil || n["records"] != 5 {
			t.Errorf("letterCounts = %v, %v", n, err)
		}
	}
	if err := d.Drop(box, 3); !errors.Is(err, ErrNotFound) {
		t.Errorf("the second Drop: %v", err)
	}
	if err := d.Drop(Box{"records", journal.Pulls}, 3); err != nil {
		t.Error(err)
	}
}

// A public push whose letter is dropped is not listed as uncounted any more.
func TestDropUncounted(t *testing.T) {
	t.Parallel()
	d := openLetters(openState(t, state.Config{Dir: t.TempDir()}))
	if err := d.SetPublic(func(string) bool { return true }); err != nil {
		t.Fatal(err)
	}
	if err := d.Dropped(journal.Pushes, sink.Counters, 1, 2, entries(t, 1, event.OpPush, event.OpPush)); err != nil {
		t.Fatal(err)
	}
	if err := d.Drop(uncountedBox, 1); err != nil {
		t.Fatal(err)
	}
	if seqs, err := d.Uncounted(10, false); err != nil || !slices.Equal(seqs, []uint64{2}) {
		t.Errorf("Uncounted = %v, %v", seqs, err)
	}
}
