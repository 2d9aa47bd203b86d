package notifier

import (
	"os"
	"path/filepath"
	"testing"
)

// pushes gives what is counted for oss/app.
func (r *rig) pushes() int64 {
	r.t.Helper()
	totals, _, _, err := r.counter.Repository(r.t.Context(), "oss/app")
	if err != nil {
		r.t.Fatal(err)
	}
	return totals.Counts["push"]
}

// A journal that is lost, or set back to an older copy, behind numbers that
// are not: what is counted stays, nothing is counted again, and what comes
// after is counted.
func TestJournalLost(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(t *testing.T, journal, backup string){
		"removed": func(t *testing.T, journal, _ string) {
			if err := os.RemoveAll(journal); err != nil {
				t.Fatal(err)
			}
		},
		"set back": func(t *testing.T, journal, backup string) {
			if err := os.RemoveAll(journal); err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(journal, os.DirFS(backup)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			journal, backup := filepath.Join(r.dir, "journal"), filepath.Join(r.dir, "backup")
			r.push(image("a", 1))
			r.drain()
			r.stop()
			if err := os.CopyFS(backup, os.DirFS(journal)); err != nil {
				t.Fatal(err)
			}
			r.open(nil)
			r.push(image("b", 1))
			r.push(image("c", 1))
			r.drain()
			id := r.journal.ID()
			r.stop()
			lose(t, journal, backup)
			r.open(nil)
			if r.journal.ID() == id {
				t.Error("the journal has its id still")
			}
			r.push(image("d", 1))
			r.drain()
			if got := r.pushes(); got != 4 {
				t.Errorf("%d pushes counted, want 4", got)
			}
			if got := len(r.records()); got != 4 {
				t.Errorf("%d records, want 4", got)
			}
		})
	}
}
