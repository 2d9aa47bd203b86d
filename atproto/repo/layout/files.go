package layout

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/internal/store"
)

// BlobFiles is the folder of blobs: one file per blob, named for its digest, and
// temporary files of blobs that are being received. A file counts only once its
// row is in the database; Sweep removes those that a crash left without one.
type BlobFiles struct {
	FS  vfs.FS
	Dir string
}

const temporary = "new-" // prefix of temporary files

// NewBlobFiles returns the blobs of the repo in dir. The folder is created
// with the first blob.
func NewBlobFiles(files vfs.FS, dir string) BlobFiles {
	return BlobFiles{store.OwnerOnly(files), files.PathJoin(dir, "blobs")}
}

// Path is the path of a blob's file.
func (f BlobFiles) Path(d block.Digest) string {
	return f.FS.PathJoin(f.Dir, hex.EncodeToString(d[:]))
}

// Create creates a temporary file.
func (f BlobFiles) Create() (path string, file vfs.File, err error) {
	if _, err := f.FS.Stat(f.Dir); errors.Is(err, fs.ErrNotExist) {
		if err := f.FS.MkdirAll(f.Dir, 0o700); err != nil {
			return "", nil, err
		}
		if err := SyncDir(f.FS, f.FS.PathDir(f.Dir)); err != nil {
			return "", nil, err
		}
	}
	path = f.FS.PathJoin(f.Dir, temporary+rand.Text())
	file, err = f.FS.Create(path, vfs.WriteCategoryUnspecified)
	return path, file, err
}

// Rename gives a temporary file, which must be synced, its final name, durably.
func (f BlobFiles) Rename(path string, d block.Digest) error {
	if err := f.FS.Rename(path, f.Path(d)); err != nil {
		return err
	}
	return SyncDir(f.FS, f.Dir)
}

// Sweep removes files without a row. Files that have other names stay.
func (f BlobFiles) Sweep(db store.Reader, lg *slog.Logger) error {
	names, err := f.FS.List(f.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list blobs: %w", err)
	}
	for _, name := range names {
		keep, err := f.wanted(db, name)
		if err != nil {
			return fmt.Errorf("look up blob %s: %w", name, err)
		}
		if keep {
			continue
		}
		if err := f.FS.Remove(f.FS.PathJoin(f.Dir, name)); err != nil {
			lg.Warn("remove unreferenced blob file", "file", name, "error", err)
		}
	}
	return nil
}

// IsBlob reports whether a file of the folder has the name of a blob.
func (f BlobFiles) IsBlob(name string) bool {
	raw, err := hex.DecodeString(name)
	return err == nil && len(raw) == block.DigestSize
}

func (f BlobFiles) wanted(db store.Reader, name string) (bool, error) {
	if strings.HasPrefix(name, temporary) {
		return false, nil
	}
	raw, err := hex.DecodeString(name)
	if err != nil || len(raw) != block.DigestSize {
		return true, nil
	}
	row, _, err := ReadBlob(db, block.Digest(raw))
	return row.Stored, err
}

// Remove deletes the files of blobs whose rows were deleted, except those that
// were uploaded again in the meantime.
func (f BlobFiles) Remove(db store.Reader, blobs []block.Digest, lg *slog.Logger) {
	for _, d := range blobs {
		if row, _, err := ReadBlob(db, d); err != nil || row.Stored {
			continue
		}
		if err := f.FS.Remove(f.Path(d)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			lg.Warn("remove blob file", "blob", d.BlobCID(), "error", err)
		}
	}
}

// Verify reads a blob's file and compares it with its size and its digest.
func (f BlobFiles) Verify(ctx context.Context, d block.Digest, size int64) error {
	file, err := f.FS.Open(f.Path(d), vfs.SequentialReadsOption)
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("file is missing")
	}
	if err != nil {
		return fmt.Errorf("file can't be read: %w", err)
	}
	defer file.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, Reader{ctx, file})
	switch {
	case err != nil:
		return fmt.Errorf("file can't be read: %w", err)
	case n != size:
		return fmt.Errorf("file has %d bytes, its row says %d", n, size)
	case block.Digest(sum.Sum(nil)) != d:
		return errors.New("bytes don't match the CID")
	}
	return nil
}

// SyncDir fsyncs a folder, which makes the names in it durable.
func SyncDir(files vfs.FS, dir string) error {
	d, err := files.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// DiskFull adds ErrNoSpace to the error of a full disk.
func DiskFull(err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("%w: %w", store.ErrNoSpace, err)
	}
	return err
}

// Reader is a reader that fails once a context ends.
type Reader struct {
	Context context.Context
	In      io.Reader
}

func (r Reader) Read(p []byte) (int, error) {
	if err := r.Context.Err(); err != nil {
		return 0, err
	}
	return r.In.Read(p)
}
