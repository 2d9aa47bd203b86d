package notifier

import (
	"errors"
	"testing"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/reconcile"
	"github.com/tidings-dev/tidings/notifier/state"
)

// A running process repairs what differs between storage, ledger and account while images are
// pushed, also if it is killed after the request. A second request while it does is refused,
// and one that comes later repairs again.
func TestRepair(t *testing.T) {
	t.Parallel()
	r := newRig(t, shortWindows())
	kept, hurt, gone, lost := image("kept", 2), image("hurt", 2), image("gone", 3), image("lost", 1)
	damage := func() {
		t.Helper()
		for rkey, record := range r.stored(lexicon.NSIDLayer) {
			fields, err := lexicon.Unmarshal(record.Value)
			if err != nil {
				t.Fatal(err)
			}
			if _, digest, _ := lexicon.ParseManifestURI(fields["manifest"].(string)); digest == hurt.Digest {
				r.apply(repo.Write{Action: repo.Delete, Collection: lexicon.NSIDLayer, RKey: rkey})
				break
			}
		}
		r.storage.remove(gone)
		var b state.Batch
		r.ledger.Delete(&b, owner, lost.Digest)
		if err := r.state.Commit(&b, state.Sync); err != nil {
			t.Fatal(err)
		}
	}
	r.push(kept.as("oss/app", "v1"))
	r.push(hurt.as("oss/app", "v2"))
	r.push(gone.as("oss/app", "v3"))
	r.push(lost.as("oss/app", "v4"))
	r.drain()
	for _, killed := range []bool{true, false} {
		posts := len(r.posts())
		damage()
		if err := r.Repair(t.Context()); err != nil {
			t.Fatal(err)
		}
		during := image("during", 1)
		if killed {
			r.reopenCopy(shortWindows())
			r.reconciled()
		} else {
			during = image("during the second", 1)
		}
		r.push(during.as("oss/other", "v1"))
		if err := r.Repair(t.Context()); err != nil && !errors.Is(err, reconcile.ErrRepairing) && !errors.Is(err, reconcile.ErrNotVerified) {
			t.Errorf("while a repair runs: %v", err)
		}
		r.until("the repair has ended", func() bool {
			phase, err := r.stores.Repair()
			return err == nil && phase == "" && r.stores.Verified()
		})
		r.drain()
		r.consistent()
		if got := len(r.posts()); got != posts+1 {
			t.Errorf("%d posts, want %d and that of the push", got, posts)
		}
		gone = image("gone again", 3)
		r.push(gone.as("oss/app", "v3"))
		r.drain()
	}
	r.account.down.Store(true)
	r.purge("oss/other")
	if err := r.Repair(t.Context()); !errors.Is(err, reconcile.ErrBusy) {
		t.Errorf("while a purge is pending: %v", err)
	}
	r.account.down.Store(false)
}
