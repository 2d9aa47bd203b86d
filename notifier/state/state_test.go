package state_test

import (
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
