package notifier

import (
	"fmt"
	"slices"
	"testing"

	"github.com/tidings-dev/tidings/notifier/versions"
)

// versions returns the versions that pages and feeds show, sorted.
func (r *rig) versions() (all []string) {
	r.t.Helper()
	err := versions.New(r.state).Each(func(v versions.Version) error {
		all = append(all, v.Repository+":"+v.Name)
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

// After the ledger was rebuilt, images that are gone have no versions, whenever they were
// deleted, although their posts are in the account. With Retract their posts are deleted.
func TestRebuiltVersions(t *testing.T) {
	t.Parallel()
	for _, retract := range []bool{false, true} {
		t.Run(fmt.Sprint("retract ", retract), func(t *testing.T) {
			t.Parallel()
			cfg := shortWindows()
			cfg.Retract = retract
			r := newRig(t, cfg)
			r.unreported = true
			r.reopen(cfg)
			kept, before, lost := image("kept", 1), image("before", 2), image("lost", 1)
			r.push(kept.as("oss/app", "v1"))
			r.push(before.as("oss/app", "v2"))
			r.push(lost.as("oss/app", "v3"))
			r.drain()
			r.delete(before)
			r.drain()
			if got, want := r.versions(), []string{"oss/app:v1", "oss/app:v3"}; !slices.Equal(got, want) {
				t.Fatalf("got %q, want %q", got, want)
			}
			r.storage.remove(lost) // as if the state were that of an older backup
			if err := r.stores.WantRebuild(); err != nil {
				t.Fatal(err)
			}
			r.reopen(cfg)
			r.reconciled()
			if got, want := r.versions(), []string{"oss/app:v1"}; !slices.Equal(got, want) {
				t.Errorf("after the rebuild: got %q, want %q", got, want)
			}
			want := 3
			if retract {
				want = 1
			}
			r.until(fmt.Sprint(want, " posts are left"), func() bool { return len(r.posts()) == want })
		})
	}
}

// Images that another registry reports as ours have posts and versions after a rebuild as well,
// although storage does not have them.
func TestRebuiltVersionsOfReported(t *testing.T) {
	t.Parallel()
	cfg := shortWindows()
	cfg.Retract = true
	r := newRig(t, cfg)
	r.notify(notificationOf(image("reported", 1).as("oss/app", "v1"), owner))
	r.drain()
	if err := r.stores.WantRebuild(); err != nil {
		t.Fatal(err)
	}
	r.reopen(cfg)
	r.reconciled()
	if got := r.versions(); !slices.Equal(got, []string{"oss/app:v1"}) || len(r.posts()) != 1 {
		t.Errorf("versions %q, %d posts", got, len(r.posts()))
	}
}
