package notifier

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/tidings-dev/tidings/atproto/store"
)

// settled waits until nothing is pending and no reconciliation is under way.
func (r *rig) settled() {
	r.t.Helper()
	r.until("storage and ledger are compared", func() bool {
		if !r.isProven() {
			return false
		}
		_, err := store.Read(r.State, reconcileKey)
		return errors.Is(err, pebble.ErrNotFound)
	})
	r.drain()
}

func (n *Notifier) isProven() bool {
	n.proving.Lock()
	defer n.proving.Unlock()
	return n.proven
}

// Whichever stores are set back to an older copy, or lost, the account ends with
// the records of what is in storage, each once, and no image is announced twice.
func TestRestore(t *testing.T) {
	t.Parallel()
	kept, gone, fresh, secret := image("kept", 3), image("gone", 2), image("fresh", 4), image("secret", 2)
	huge := image("huge", 450)
	for _, lost := range []bool{false, true} {
		for _, stores := range [][]string{{}, {"journal"}, {"state"}, {"hold"}, {"journal", "state"}, {"journal", "hold"}, {"state", "hold"}, {"journal", "state", "hold"}} {
			if lost && strings.Contains(fmt.Sprint(stores), "hold") {
				continue // without its repository and key there is no account
			}
			t.Run(fmt.Sprint(stores, " lost ", lost), func(t *testing.T) {
				t.Parallel()
				r := newRig(t, soon())
				r.folder = "before"
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
					if lost {
						continue
					}
					if err := os.CopyFS(filepath.Join(r.dir, name), os.DirFS(filepath.Join(backup, name))); err != nil {
						t.Fatal(err)
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
					announced[p["tidingsImage"].(string)]++
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
				if reason, err := r.apart(); reason != "" || err != nil {
					t.Errorf("the stores are apart again: %s, %v", reason, err)
				}
			})
		}
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
