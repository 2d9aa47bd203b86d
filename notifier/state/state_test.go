package state_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/state/statetest"
)

func TestPebble(t *testing.T) {
	t.Parallel()
	statetest.Run(t, func(t *testing.T) (state.Store, func() state.Store) {
		fs := vfs.NewMem()
		var db *store.Store
		open := func() state.Store {
			var err error
			if db, err = state.Open(state.Config{Dir: "state", FS: fs}); err != nil {
				t.Fatal(err)
			}
			return state.OnPebble(db)
		}
		s := open()
		t.Cleanup(func() { _ = db.Close() })
		return s, func() state.Store {
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			return open()
		}
	})
}

// A key that does not exist costs Exist no read once the filters are in memory, and one that
// exists costs one block of data, however many keys there are.
func TestBlockReads(t *testing.T) {
	t.Parallel()
	const count, lookups = 20_000, 100
	key := func(kind string, i int) []byte { k := sha256.Sum256(fmt.Append(nil, kind, i)); return k[:] }
	fs := vfs.NewMem()
	db, err := state.Open(state.Config{Dir: "state", FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	for half := range 2 { // two tables, so that they are rewritten
		var b state.Batch
		for i := half; i < count; i += 2 {
			b.Set(key("present", i), []byte{1})
		}
		if err := errors.Join(state.OnPebble(db).Commit(&b, state.Sync), store.Pebble(db).Flush()); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Pebble(db).Compact(t.Context(), []byte{0}, []byte{0xff, 0xff}, false); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil { // so that no block is in memory
		t.Fatal(err)
	}
	if db, err = state.Open(state.Config{Dir: "state", FS: fs}); err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if levels := store.Pebble(db).Metrics().Levels; levels[len(levels)-1].TablesCount == 0 {
		t.Fatal("no table is in the last level")
	}
	reads := func(kind string) int64 {
		var keys [][]byte
		for i := range lookups {
			keys = append(keys, key(kind, i))
		}
		before := store.Pebble(db).Metrics().BlockCache.Misses
		exist, err := state.OnPebble(db).Exist(t.Context(), keys)
		if err != nil {
			t.Fatal(err)
		}
		for i := range exist {
			if exist[i] != (kind == "present") {
				t.Fatalf("%s key %d: %v", kind, i, exist[i])
			}
		}
		return store.Pebble(db).Metrics().BlockCache.Misses - before
	}
	reads("of other names")
	if n := reads("absent"); n > lookups/20 {
		t.Errorf("%d keys that do not exist cost %d reads", lookups, n)
	}
	if n := reads("present"); n > lookups+lookups/10 {
		t.Errorf("%d keys that exist cost %d reads", lookups, n)
	}
}
