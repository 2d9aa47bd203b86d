package notifier

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/notifier/post"
	"github.com/tidings-dev/tidings/notifier/state"
)

// settled waits until nothing is pending and no reconciliation is under way.
func (r *rig) settled() {
	r.t.Helper()
	r.until("storage and ledger are compared", func() bool {
		if !r.verified.Load() {
			return false
		}
		_, err := r.state.Get(state.ReconcilePhase)
		return errors.Is(err, state.ErrNotFound)
	})
	r.drain()
}

// Whichever stores are set back to an older copy, or lost, the account ends with
// the records of what is in storage, each once, and no image is announced twice.
func TestRestore(t *testing.T) {
	t.Parallel()
	kept, gone, fresh, secret := image("kept", 3), image("gone", 2), image("fresh", 4), image("secret", 2)
	huge := image("huge", 450)
	for _, lost := range []bool{false, true} {
		for _, stores := range [][]string{{}, {"journal"}, {"state"}, {"hold"}, {"journal", "state"}, {"journal", "hold"}, {"state", "hold"}, {"journal", "state", "hold"}} {
			if lost && len(stores) == 3 {
				continue // a new installation beside old images
			}
			t.Run(fmt.Sprint(stores, " lost ", lost), func(t *testing.T) {
				t.Parallel()
				r := newRig(t, soon())
				r.folder, r.inner = "before", "before"
				r.reopen(soon())
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
				r.open(soon())
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
						r.inner = "restored"
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

				r.open(soon())
				r.settled()
				r.consistent(differPost)
				// People push what they have pushed before, and something new.
				r.push(kept.as("oss/app", "v1"))
				r.push(fresh.as("oss/app", "v3"))
				r.push(image("new", 1).as("oss/app", "v4"))
				r.drain()
				r.consistent(differPost)
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
				// The whole folder set back knows nothing of what was announced since.
				if got := len(r.posts()); got != posts+1 && !strings.Contains(fmt.Sprint(stores), "hold") {
					t.Errorf("%d posts, want %d and the new one", got, posts)
				}
				// It is done once: the next start finds nothing to do.
				r.reopen(soon())
				r.settled()
				if reason, err := r.mismatch(); reason != "" || err != nil {
					t.Errorf("the stores are apart again: %s, %v", reason, err)
				}
			})
		}
	}
}

// Without a name of the repository's folder, a repository that was set back is
// known by its revision.
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
	r.settled()
	r.consistent()
	if got := len(r.records()); got != 7 {
		t.Errorf("%d records, want 7", got)
	}
}

// Journal and state are set back to a copy that was made while a batch was on its
// way. That the batch is settled first does not hide that the account is newer.
func TestRestoreWithOutbox(t *testing.T) {
	t.Parallel()
	r := newRig(t, soon())
	r.push(image("a", 3).as("oss/app", "v1"))
	r.drain()
	r.account.failAfter(0, 1000)
	r.push(image("b", 4).as("oss/app", "v2"))
	r.until("a batch is on its way", func() bool {
		_, err := r.state.Get([]byte("b/records"))
		return err == nil
	})
	r.stop()
	backup := filepath.Join(r.dir, "backup")
	for _, name := range []string{"journal", "state"} {
		if err := os.CopyFS(filepath.Join(backup, name), os.DirFS(filepath.Join(r.dir, name))); err != nil {
			t.Fatal(err)
		}
	}
	r.open(soon())
	r.push(image("c", 5).as("oss/app", "v3"))
	r.drain()
	r.stop()
	for _, name := range []string{"journal", "state"} {
		dir := filepath.Join(r.dir, name)
		if err := errors.Join(os.RemoveAll(dir), os.CopyFS(dir, os.DirFS(filepath.Join(backup, name)))); err != nil {
			t.Fatal(err)
		}
	}
	r.open(soon())
	r.settled()
	r.consistent()
	r.push(image("c", 5).as("oss/app", "v3"))
	r.drain()
	r.consistent()
	if records, posts := len(r.records()), len(r.posts()); records != 12 || posts != 3 {
		t.Errorf("%d records and %d posts, want 12 and 3", records, posts)
	}
}

// A record that was deleted by hand is a difference, and made again if an
// operator asks for it.
func TestReconcileAsked(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.push(image("a", 3))
	r.push(image("b", 4))
	r.drain()
	r.apply(recordDeletes(ledgerEntry(r.event(2), 4))[2])
	r.reopen(nil)
	r.settled()
	differences := 0
	if err := r.Check(t.Context(), func(Difference) error { differences++; return nil }); err != nil || differences != 1 {
		t.Errorf("%d differences, %v, want 1", differences, err)
	}
	if err := r.WantRebuild(); err != nil {
		t.Fatal(err)
	}
	r.reopen(nil)
	r.settled()
	r.consistent()
	if got := len(r.records()); got != 7 {
		t.Errorf("%d records, want 7", got)
	}
}

// Records that are there twice, since an earlier version did not know better,
// are deleted when the ledger is rebuilt, and a manifest with a part of its
// records gets all.
func TestRebuildMends(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	a, b := image("a", 3), image("b", 4)
	r.push(a)
	r.push(b)
	r.drain()
	// A second set of a's records, and one record of b gone.
	e := r.event(1)
	e.TID += 1000
	layers := plan(e).Records
	again, err := recordWrites(e.UserDID, e.ManifestDigest, layers, ledgerEntry(e, len(layers)))
	if err != nil {
		t.Fatal(err)
	}
	r.apply(again...)
	second := r.event(2)
	r.apply(recordDeletes(ledgerEntry(second, 4))[2])
	r.stop()
	if err := os.RemoveAll(filepath.Join(r.dir, "state")); err != nil {
		t.Fatal(err)
	}
	r.open(nil)
	r.settled()
	r.consistent()
	for record, times := range r.records() {
		if times != 1 {
			t.Errorf("%s is there %d times", record, times)
		}
	}
	if got := len(r.records()); got != 7 {
		t.Errorf("%d records, want 7", got)
	}
}
