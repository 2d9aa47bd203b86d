package notifier

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/internal/race"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/post"
	"github.com/tidings-dev/tidings/notifier/reconcile"
	"github.com/tidings-dev/tidings/notifier/records"
	"github.com/tidings-dev/tidings/notifier/state"
)

// reconciled waits until nothing is pending and no reconciliation is requested.
func (r *rig) reconciled() {
	r.t.Helper()
	r.until("storage and ledger are compared", func() bool {
		if !r.stores.Verified() {
			return false
		}
		_, err := r.state.Get(state.ReconcilePhase)
		return errors.Is(err, state.ErrNotFound)
	})
	r.drain()
}

// A restoreCase is the stores that are lost, or restored from an older copy.
type restoreCase struct {
	stores []string
	lost   bool
}

// restoreCases returns all cases, and with the race detector four of them, since the goroutines
// are the same in all.
func restoreCases() (cases []restoreCase) {
	for _, stores := range [][]string{{}, {"journal"}, {"state"}, {"hold"}, {"journal", "state"}, {"journal", "hold"}, {"state", "hold"}, {"journal", "state", "hold"}} {
		cases = append(cases, restoreCase{stores, false})
		if len(stores) < 3 { // all lost is a new installation with old images
			cases = append(cases, restoreCase{stores, true})
		}
	}
	if race.Enabled {
		rand.Shuffle(len(cases), func(i, j int) { cases[i], cases[j] = cases[j], cases[i] })
		cases = cases[:4]
	}
	return cases
}

// Whichever stores are lost or restored from an older copy, the account finally has the
// records of what is in storage, each once, and no image is announced twice.
func TestRestore(t *testing.T) {
	t.Parallel()
	kept, gone, fresh, secret := image("kept", 3), image("gone", 2), image("fresh", 4), image("secret", 2)
	huge := image("huge", 450)
	for _, c := range restoreCases() {
		stores, lost := c.stores, c.lost
		t.Run(fmt.Sprint(stores, " lost ", lost), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, shortWindows())
			r.folder, r.accountFolder = "before", "before"
			r.reopen(shortWindows())
			r.push(kept.as("oss/app", "v1"))
			r.push(gone.as("oss/app", "v2"))
			r.push(secret.as("secret/app", "v1"))
			r.drain()
			r.stop()
			backup := filepath.Join(r.dir, "backup")
			for _, name := range stores {
				if err := os.CopyFS(filepath.Join(backup, name), os.DirFS(filepath.Join(r.dir, name))); err != nil {
					t.Fatal(err)
				}
			}
			r.open(shortWindows())
			r.push(kept.as("oss/other", "v1"))
			r.push(kept.as("oss/app", "v1.0"))
			r.push(fresh.as("oss/app", "v3"))
			r.push(huge)
			r.delete(gone)
			r.drain()
			r.consistent()
			posts := len(r.posts())
			r.stop()
			if len(stores) == 3 {
				r.folder = "restored"
			}
			for _, name := range stores {
				if err := os.RemoveAll(filepath.Join(r.dir, name)); err != nil {
					t.Fatal(err)
				}
				if name == "hold" {
					r.accountFolder = "restored"
				}
				switch {
				case lost && name == "hold":
					r.initRepo()
				case !lost:
					if err := os.CopyFS(filepath.Join(r.dir, name), os.DirFS(filepath.Join(backup, name))); err != nil {
						t.Fatal(err)
					}
				}
			}

			r.open(shortWindows())
			r.reconciled()
			r.consistent(reconcile.Post)
			// Images are pushed again, and a new one.
			r.push(kept.as("oss/app", "v1"))
			r.push(fresh.as("oss/app", "v3"))
			r.push(image("new", 1).as("oss/app", "v4"))
			r.drain()
			r.consistent(reconcile.Post)
			if got, want := len(r.records()), 3+4+450+1; got != want {
				t.Errorf("%d records, want %d", got, want)
			}
			announced := map[string]int{}
			for _, p := range r.posts() {
				image, _ := post.Origin(p)
				announced[image.Repository+"@"+image.Digest]++
			}
			for image, times := range announced {
				if times > 1 {
					t.Errorf("%s is announced %d times", image, times)
				}
			}
			// If all stores are restored, later announcements are not known.
			if got := len(r.posts()); got != posts+1 && !strings.Contains(fmt.Sprint(stores), "hold") {
				t.Errorf("%d posts, want %d and the new one", got, posts)
			}
			// The next start finds nothing to do.
			r.reopen(shortWindows())
			r.reconciled()
			if reason, err := r.stores.Mismatch(t.Context()); reason != "" || err != nil {
				t.Errorf("the stores do not match again: %s, %v", reason, err)
			}
		})
	}
}

// If the folder of the repo is not known, a restored repo is detected by its revision.
func TestRestoreOlderRevision(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	a, b := image("a", 3), image("b", 4)
	r.push(a)
	r.drain()
	r.stop()
	hold, backup := filepath.Join(r.dir, "hold"), filepath.Join(r.dir, "backup")
	if err := os.CopyFS(backup, os.DirFS(hold)); err != nil {
		t.Fatal(err)
	}
	r.open(nil)
	r.push(b)
	r.drain()
	r.stop()
	if err := errors.Join(os.RemoveAll(hold), os.CopyFS(hold, os.DirFS(backup))); err != nil {
		t.Fatal(err)
	}
	r.open(nil)
	r.reconciled()
	r.consistent()
	if got := len(r.records()); got != 7 {
		t.Errorf("%d records, want 7", got)
	}
}

// Journal and state are restored from a copy with a batch in the outbox. Confirming the batch
// does not hide that the repo is newer.
func TestRestoreWithOutbox(t *testing.T) {
	t.Parallel()
	r := newRig(t, shortWindows())
	r.push(image("a", 3).as("oss/app", "v1"))
	r.drain()
	r.account.failAfter(0, 1000)
	r.push(image("b", 4).as("oss/app", "v2"))
	r.until("a batch is in the outbox", func() bool {
		_, err := r.state.Get(state.RecordsOutbox)
		return err == nil
	})
	r.stop()
	backup := filepath.Join(r.dir, "backup")
	for _, name := range []string{"journal", "state"} {
		if err := os.CopyFS(filepath.Join(backup, name), os.DirFS(filepath.Join(r.dir, name))); err != nil {
			t.Fatal(err)
		}
	}
	r.open(shortWindows())
	r.push(image("c", 5).as("oss/app", "v3"))
	r.drain()
	r.stop()
	for _, name := range []string{"journal", "state"} {
		dir := filepath.Join(r.dir, name)
		if err := errors.Join(os.RemoveAll(dir), os.CopyFS(dir, os.DirFS(filepath.Join(backup, name)))); err != nil {
			t.Fatal(err)
		}
	}
	r.open(shortWindows())
	r.reconciled()
	r.consistent()
	r.push(image("c", 5).as("oss/app", "v3"))
	r.drain()
	r.consistent()
	if records, posts := len(r.records()), len(r.posts()); records != 12 || posts != 3 {
		t.Errorf("%d records and %d posts, want 12 and 3", records, posts)
	}
}

// A comparison that is interrupted ends at once, whatever it compares.
func TestCheckInterrupted(t *testing.T) {
	t.Parallel()
	r := newRig(t, shortWindows())
	r.push(image("a", 3))
	r.push(image("b", 4).as("oss/other", "v1"))
	r.drain()
	for _, noun := range []string{"manifests in storage", "layer records", "manifests in the ledger", "posts", "repositories with counts"} {
		ctx, cancel := context.WithCancel(t.Context())
		after := 0
		progress := func(compared string, _ int64) {
			if ctx.Err() != nil {
				after++
			}
			if compared == noun {
				cancel()
			}
		}
		err := r.stores.Check(ctx, progress, func(reconcile.Difference) error { return nil })
		if !errors.Is(err, context.Canceled) || after != 0 {
			t.Errorf("%s: %v, with %d steps after the interrupt", noun, err, after)
		}
		cancel()
	}
}

// A record that was deleted by hand is a difference, and is written again when an operator
// requests a rebuild.
func TestRebuildRequested(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.push(image("a", 3))
	r.push(image("b", 4))
	r.drain()
	r.apply(records.Deletes(ledgerEntry(r.event(2), 4))[2])
	r.reopen(nil)
	r.reconciled()
	differences := 0
	if err := r.stores.Check(t.Context(), nil, func(reconcile.Difference) error { differences++; return nil }); err != nil || differences != 1 {
		t.Errorf("%d differences, %v, want 1", differences, err)
	}
	if err := state.Set(r.state, state.StatsRound, []byte("{}"), state.Sync); err != nil {
		t.Fatal(err)
	}
	if err := r.stores.WantRebuild(); err != nil {
		t.Fatal(err)
	}
	r.reopen(nil)
	r.reconciled()
	r.consistent()
	if got := len(r.records()); got != 7 {
		t.Errorf("%d records, want 7", got)
	}
	if has, err := state.Has(r.state, state.StatsRound); has || err != nil {
		t.Errorf("the round of stats records is kept: %v, %v", has, err)
	}
}

// A rebuild deletes duplicate records, and completes the records of a manifest.
func TestRebuildDuplicates(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	a, b := image("a", 3), image("b", 4)
	r.push(a)
	r.push(b)
	r.drain()
	// Write a's records again, and delete one of b's.
	e := r.event(1)
	e.TID += 1000
	layers := event.PlanOf(e).Records
	again, err := records.Creates(e.UserDID, e.ManifestDigest, layers, ledgerEntry(e, len(layers)))
	if err != nil {
		t.Fatal(err)
	}
	r.apply(again...)
	second := r.event(2)
	r.apply(records.Deletes(ledgerEntry(second, 4))[2])
	r.stop()
	if err := os.RemoveAll(filepath.Join(r.dir, "state")); err != nil {
		t.Fatal(err)
	}
	r.open(nil)
	r.reconciled()
	r.consistent()
	for record, times := range r.records() {
		if times != 1 {
			t.Errorf("%s exists %d times", record, times)
		}
	}
	if got := len(r.records()); got != 7 {
		t.Errorf("%d records, want 7", got)
	}
}

// pushes is the number of counted pushes of oss/app.
func (r *rig) pushes() int64 {
	r.t.Helper()
	totals, _, _, err := r.counter.Repository(r.t.Context(), "oss/app")
	if err != nil {
		r.t.Fatal(err)
	}
	return totals.Counts["push"]
}

// The journal is lost or restored from an older copy, and the numbers are not: they stay,
// nothing is counted twice, and later events are counted.
func TestJournalLost(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(t *testing.T, journal, backup string){
		"removed": func(t *testing.T, journal, _ string) {
			if err := os.RemoveAll(journal); err != nil {
				t.Fatal(err)
			}
		},
		"restored": func(t *testing.T, journal, backup string) {
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
				t.Error("the journal has the same id")
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
