package pushed

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/counts"
)

// A locker calls a function before it is locked.
type locker func()

func (l locker) Lock() { l() }
func (locker) Unlock() {}

// Keys of old pushes are dropped, except for those that a push sets again between the moment
// they are found and the moment they are deleted.
func TestDrop(t *testing.T) {
	t.Parallel()
	for at, kind := range []string{"pushed", "latest"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			testDrop(t, at)
		})
	}
}

// testDrop lets a push set its keys again just before Drop deletes those of a kind: 0 or 1.
func testDrop(t *testing.T, at int) {
	db, err := store.Open(store.Config{Dir: "state", FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	record := func(tag string, day int64) {
		b := db.NewIndexedBatch()
		if _, err := Record(b, &counts.Fact{Repository: "oss/app", Digest: "sha256:" + tag, Tag: tag}, day); err != nil {
			t.Fatal(err)
		}
		if err := db.Commit(b, store.NoSync); err != nil {
			t.Fatal(err)
		}
	}
	record("old", 1)
	record("again", 1)
	record("new", 10)
	locked := 0
	lock := func() {
		if locked == at {
			record("again", 10)
		}
		locked++
	}
	if err := Drop(db, locker(lock), 10); err != nil {
		t.Fatal(err)
	}
	for tag, want := range map[string]bool{"old": false, "again": true, "new": true} {
		for kind, key := range map[string][]byte{"pushed": Key("oss/app", "sha256:"+tag, tag), "latest": latestKey("oss/app", tag)} {
			if got, err := store.Has(db, key); err != nil || got != want {
				t.Errorf("the %s key of %s is there: %v (%v), want %v", kind, tag, got, err, want)
			}
		}
	}
}
