package repo

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tidings-dev/tidings/internal/store"
)

// blobFiles is the folder of blobs: a file for each, named for its digest, and
// files on their way in. A file counts only once its row is in the database;
// what a crash leaves without one is removed at the next start.
type blobFiles struct {
	fs  vfs.FS
	dir string
}

const newBlob = "new-"

func newBlobFiles(cfg Config) blobFiles {
	return blobFiles{store.OwnerOnly(cfg.FS), cfg.FS.PathJoin(cfg.Dir, "blobs")}
}

func (f blobFiles) path(d digest) string {
	return f.fs.PathJoin(f.dir, hex.EncodeToString(d[:]))
}

// create makes a file on its way in, and the folder with the first one.
func (f blobFiles) create() (path string, file vfs.File, err error) {
	if _, err := f.fs.Stat(f.dir); errors.Is(err, fs.ErrNotExist) {
		if err := f.fs.MkdirAll(f.dir, 0o700); err != nil {
			return "", nil, err
		}
		if err := f.syncDir(f.fs.PathDir(f.dir)); err != nil {
			return "", nil, err
		}
	}
	path = f.fs.PathJoin(f.dir, newBlob+rand.Text())
	file, err = f.fs.Create(path, vfs.WriteCategoryUnspecified)
	return path, file, err
}

// place gives a finished file its name, durably.
func (f blobFiles) place(path string, d digest) error {
	if err := f.fs.Rename(path, f.path(d)); err != nil {
		return err
	}
	return f.syncDir(f.dir)
}

func (f blobFiles) syncDir(dir string) error {
	d, err := f.fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// sweep removes files that have no row.
func (f blobFiles) sweep(x *blobIndex, lg *slog.Logger) error {
	names, err := f.fs.List(f.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list blobs: %w", err)
	}
	for _, name := range names {
		keep, err := f.wanted(x, name)
		if err != nil {
			return fmt.Errorf("look up blob %s: %w", name, err)
		}
		if keep {
			continue
		}
		if err := f.fs.Remove(f.fs.PathJoin(f.dir, name)); err != nil {
			lg.Warn("remove a blob that nothing knows", "file", name, "error", err)
		}
	}
	return nil
}

// wanted says whether a file in the folder is to stay. One that isn't ours is.
func (f blobFiles) wanted(x *blobIndex, name string) (bool, error) {
	if strings.HasPrefix(name, newBlob) {
		return false, nil
	}
	raw, err := hex.DecodeString(name)
	if err != nil || len(raw) != digestSize {
		return true, nil
	}
	row, _, err := x.row(digest(raw))
	return row.stored, err
}

// remove deletes the files of blobs that were dropped, unless one of them was
// uploaded again meanwhile.
func (f blobFiles) remove(db pebble.Reader, dropped []digest, lg *slog.Logger) {
	x := &blobIndex{db: db}
	for _, d := range dropped {
		if row, _, err := x.row(d); err != nil || row.stored {
			continue
		}
		if err := f.fs.Remove(f.path(d)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			lg.Warn("remove a blob", "blob", d.cid(), "error", err)
		}
	}
}
