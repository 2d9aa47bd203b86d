package notifier

import (
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/tidings-dev/tidings/internal/race"
	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/announce/posted"
	"github.com/tidings-dev/tidings/notifier/classify"
	"github.com/tidings-dev/tidings/notifier/state"
)

// TestPrices measures the rows that TestWeek has too few of, in the files of a state after
// compaction (docs/publishing.md).
func TestPrices(t *testing.T) {
	race.Skip(t, "nothing in it runs concurrently")
	t.Parallel()
	for name, test := range map[string]struct {
		least, most float64 // bytes for each
		write       func(t *testing.T, db *store.Store, count int)
	}{
		"posts":                    {70, 130, writePosts},
		"further images of a post": {65, 125, writeImages},
		"purges":                   {20, 60, writePurges},
		"index entries":            {15, 30, writeIndexEntries},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const count = 20_000
			empty := pricedState(t, func(*store.Store) {})
			per := float64(pricedState(t, func(db *store.Store) { test.write(t, db, count) })-empty) / count
			t.Logf("%s: %.1f bytes for each", name, per)
			if per < test.least || per > test.most {
				t.Errorf("%s take %.1f bytes for each, want %.0f to %.0f", name, per, test.least, test.most)
			}
		})
	}
}

// pricedState returns the size in bytes of a state with some rows, after compaction.
func pricedState(t *testing.T, write func(*store.Store)) int64 {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	db, err := state.Open(state.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	write(db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	compact(t, dir)
	return sizeOfFolder(t, dir)
}

// commitEach commits a batch for each number.
func commitEach(t *testing.T, db *store.Store, count int, set func(b *state.Batch, i int) error) {
	t.Helper()
	for i := range count {
		var b state.Batch
		if err := set(&b, i); err != nil {
			t.Fatal(err)
		}
		if err := state.OnPebble(db).Commit(&b, state.NoSync); err != nil {
			t.Fatal(err)
		}
	}
}

func pricedDigest(i int) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(fmt.Append(nil, i))) }

// pricedKey is the record key of the post with a number.
func pricedKey(i int) string {
	return syntax.NewTID(1_700_000_000_000_000+int64(i)*7_000_001, 17).String()
}

func writePosts(t *testing.T, db *store.Store, count int) {
	commitEach(t, db, count, func(b *state.Batch, i int) error {
		row := posted.Post{Repository: fmt.Sprintf("team/application-%d", i%50), Digest: pricedDigest(i), Tags: []string{fmt.Sprintf("v1.%d.%d", i/100, i%100)}, Versions: 1}
		return row.Set(b, pricedKey(i))
	})
}

func writeImages(t *testing.T, db *store.Store, count int) {
	commitEach(t, db, count, func(b *state.Batch, i int) error {
		row := posted.Image{Repository: fmt.Sprintf("team/application-%d", i%50), Digest: pricedDigest(i), Name: fmt.Sprintf("v1.%d.%d", i/100, i%100)}
		return row.Set(b, pricedKey(i/10), i%10)
	})
}

// writePurges writes the rows of repositories that were purged, and pushed to later. Their names
// have 22 bytes.
func writePurges(t *testing.T, db *store.Store, count int) {
	commitEach(t, db, count, func(b *state.Batch, i int) error {
		for _, prefix := range []string{state.PurgedUpTo, state.Purged, state.PushedSince} {
			b.SetNumber(fmt.Appendf(nil, "%steam/application-%05d", prefix, i), uint64(i+1))
		}
		return nil
	})
}

func writeIndexEntries(t *testing.T, db *store.Store, count int) {
	entries, err := classify.OpenStore(db, "c/c/", 1_000_000)
	if err != nil {
		t.Fatal(err)
	}
	for i := range count / 4 {
		b := db.NewIndexedBatch()
		children := []string{pricedDigest(4 * i), pricedDigest(4*i + 1), pricedDigest(4*i + 2), pricedDigest(4*i + 3)}
		entries.Begin()
		if err := entries.Add(b, "team/application", "", pricedDigest(-i-1), children, false); err != nil {
			t.Fatal(err)
		}
		if err := db.Commit(b, store.NoSync); err != nil {
			t.Fatal(err)
		}
	}
}
