package journal_test

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/journal/journaltest"
)

// A journal that is read after a crash has the events, the cursors and the open intents, and
// nothing on disk has changed, not even a torn tail.
func TestOpenReadOnly(t *testing.T) {
	t.Parallel()
	disk := journaltest.NewDisk()
	if _, err := journal.OpenReadOnly(journal.Config{Dir: "j", FS: disk}); err == nil {
		t.Error("a folder without a journal is opened")
	}
	j := open(t, disk)
	if err := j.Register(journal.Pushes, "r"); err != nil {
		t.Fatal(err)
	}
	add(t, j, journal.Pushes, 10)
	if _, err := j.Begin(ctx, 1, []byte("intent")); err != nil {
		t.Fatal(err)
	}
	if err := j.SetCursor(journal.Pushes, "r", 4); err != nil {
		t.Fatal(err)
	}
	crashed := disk.Kill()
	for _, name := range crashed.Files() {
		if strings.Contains(name, "pushes-") {
			crashed.Put(name, append(crashed.Bytes(name), "torn"...))
		}
	}
	before := contents(crashed)
	r, err := journal.OpenReadOnly(journal.Config{Dir: "j", FS: crashed})
	if err != nil {
		t.Fatal(err)
	}
	entries, err := r.Read(journal.Pushes, r.Cursor(journal.Pushes, "r"), 100, 1<<20)
	if err != nil || len(entries) != 6 || entries[0].Seq != 5 || len(r.Unresolved()) != 1 || r.InProgress() != 0 || len(r.Segments(journal.Pushes)) == 0 {
		t.Errorf("%d entries, %v; %d open intents, segments %v", len(entries), err, len(r.Unresolved()), r.Segments(journal.Pushes))
	}
	if _, err := r.Append(ctx, journal.Pushes, 1, []byte("x")); !errors.Is(err, journal.ErrReadOnly) {
		t.Errorf("append: %v", err)
	}
	if err := r.SetCursor(journal.Pushes, "r", 9); !errors.Is(err, journal.ErrReadOnly) {
		t.Errorf("move the cursor: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if after := contents(crashed); !maps.Equal(after, before) {
		t.Errorf("the files have changed:\n%q\nwant\n%q", after, before)
	}
}

// A cursor moves back to events that the journal still has, durably.
func TestRewind(t *testing.T) {
	t.Parallel()
	disk := journaltest.NewDisk()
	j := open(t, disk)
	for _, name := range []string{"r", "other"} {
		if err := j.Register(journal.Pushes, name); err != nil {
			t.Fatal(err)
		}
	}
	add(t, j, journal.Pushes, 200)
	for name, seq := range map[string]uint64{"r": 180, "other": 150} {
		if err := j.SetCursorLazily(journal.Pushes, name, seq); err != nil {
			t.Fatal(err)
		}
	}
	first := j.Status(journal.Pushes).First
	if first < 2 || first > 150 {
		t.Fatalf("the first event is %d", first)
	}
	if err := j.Rewind(journal.Pushes, "r", first-2); !errors.Is(err, journal.ErrGone) {
		t.Errorf("to a deleted event: %v", err)
	}
	if err := j.Rewind(journal.Pushes, "r", 160); err != nil {
		t.Fatal(err)
	}
	if err := j.Rewind(journal.Pushes, "other", 170); err != nil { // not forward
		t.Fatal(err)
	}
	for range 2 {
		if r, other := j.Cursor(journal.Pushes, "r"), j.Cursor(journal.Pushes, "other"); r != 160 || other > 150 {
			t.Errorf("cursors %d and %d, want 160 and at most 150", r, other)
		}
		j = open(t, disk.PowerCut(nil))
	}
	if err := j.Rewind(journal.Pushes, "r", 999); err == nil {
		t.Error("a position ahead of the last event")
	}
}
