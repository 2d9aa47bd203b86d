package repo

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/tidings-dev/tidings/internal/store"
)

// A copy of a repo in use is a repo at one moment, with the files of its blobs. Blobs that
// are removed while it is copied stay until the copy has them.
func TestCopy(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	now := time.Now()
	cfg.Now = func() time.Time { return now }
	r := initRepo(t, cfg, profile())
	kept, idle := upload(t, r, "kept"), upload(t, r, "idle")
	apply(t, r, picture(Create, "a", kept, idle))
	apply(t, r, picture(Update, "a", kept))
	cleanUp := func() {
		t.Helper()
		if _, err := r.send(request{ctx: t.Context(), work: func(w *writer, _ store.Batch) error { return w.cleanUp(r.publish) }}); err != nil {
			t.Fatal(err)
		}
	}
	r.copying.RLock() // as during a Copy
	now = now.Add(2 * time.Hour)
	cleanUp()
	if names := blobFileNames(t, r.cfg); len(names) != 2 {
		t.Errorf("files of blobs while they are copied: %v, want both", names)
	}
	r.copying.RUnlock()
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := range 30 {
				apply(t, r, note(Create, fmt.Sprint(w, "-", i), "text"))
			}
		})
	}
	if err := r.Copy(t.Context(), "copy"); err != nil {
		t.Fatal(err)
	}
	writers.Wait()
	cleanUp()
	if names := blobFileNames(t, r.cfg); len(names) != 1 {
		t.Errorf("files of blobs afterwards: %v, want one", names)
	}
	other := r.cfg
	other.Dir = "copy"
	c, err := Open(other)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.Head().Rev > r.Head().Rev || c.Head().Rev == "" {
		t.Errorf("the copy is at %s, the repo at %s", c.Head().Rev, r.Head().Rev)
	}
	wantBlob(t, c, kept.CID, "kept")
	apply(t, c, note(Create, "more", "text"))
	if err := r.Copy(t.Context(), "copy"); err == nil {
		t.Error("a folder was replaced by a copy")
	}
}

// listingFS calls listed once, after the files of blobs were listed.
type listingFS struct {
	vfs.FS
	listed func()
}

func (f *listingFS) List(dir string) ([]string, error) {
	names, err := f.FS.List(dir)
	if call := f.listed; call != nil && f.PathBase(dir) == "blobs" {
		f.listed = nil
		call()
	}
	return names, err
}

// A blob that is uploaded while the files of blobs are copied has no row in the copy, whose
// database was copied before: no row of a copy lacks its file.
func TestCopyDuringUpload(t *testing.T) {
	t.Parallel()
	fs := &listingFS{FS: vfs.NewMem()}
	cfg := testConfig(t)
	cfg.FS = fs
	r := initRepo(t, cfg, profile())
	early := upload(t, r, "early")
	apply(t, r, picture(Create, "early", early))
	var late Blob
	fs.listed = func() {
		late = upload(t, r, "late")
		apply(t, r, picture(Create, "late", late))
	}
	if err := r.Copy(t.Context(), "copy"); err != nil {
		t.Fatal(err)
	}
	wantBlob(t, r, late.CID, "late")
	other := r.cfg
	other.Dir = "copy"
	c := openRepo(t, other)
	wantBlob(t, c, early.CID, "early")
	if _, err := c.Blob(late.CID); !errors.Is(err, ErrBlobNotFound) {
		wantBlob(t, c, late.CID, "late")
	}
}
