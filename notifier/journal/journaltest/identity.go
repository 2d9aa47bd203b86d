package journaltest

import (
	"testing"

	"github.com/tidings-dev/tidings/notifier/journal"
)

func identity(t *testing.T, f *fixture) {
	id, clock := f.j.ID(), f.j.ClockID()
	if len(id) != 16 || clock > 1023 {
		t.Errorf("ID %q, ClockID %d", id, clock)
	}
	f.append(journal.Pushes, 1)
	f.reopen()
	if f.j.ID() != id || f.j.ClockID() != clock {
		t.Errorf("ID %q, ClockID %d became %q, %d", id, clock, f.j.ID(), f.j.ClockID())
	}
	other := journal.Config{Dir: t.TempDir()}
	j, err := f.open(other)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if j.ID() == id {
		t.Error("two journals have the same id")
	}
}

func renewedID(t *testing.T, f *fixture) {
	f.append(journal.Pulls, 5)
	id := f.j.ID()
	if err := f.j.AdvanceTo(journal.Pulls, 5); err != nil || f.j.ID() != id {
		t.Fatalf("AdvanceTo to the last event: %v, id %s became %s", err, id, f.j.ID())
	}
	if err := f.j.AdvanceTo(journal.Pulls, 9); err != nil || f.j.ID() == id {
		t.Fatalf("AdvanceTo beyond it: %v, id is still %s", err, id)
	}
	id = f.j.ID()
	for range 2 { // nothing is appended in between
		f.reopen()
		if err := f.j.AdvanceTo(journal.Pulls, 9); err != nil || f.j.ID() != id {
			t.Fatalf("AdvanceTo after a restart: %v, id %s became %s", err, id, f.j.ID())
		}
	}
	if seq := f.append(journal.Pulls, 1); seq != 10 {
		t.Errorf("the event after a cursor at 9 has number %d, want 10", seq)
	}
	f.reopen()
	if f.j.ID() != id {
		t.Errorf("id %s became %s at a restart", id, f.j.ID())
	}
	if entries := f.read(journal.Pulls, 4); len(entries) != 2 || entries[0].Seq != 5 || entries[1].Seq != 10 {
		t.Errorf("Read = %+v, want events 5 and 10", entries)
	}
}
