package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tidings-dev/tidings/atproto/block"
)

// Copy copies the repo to a new folder while it is in use: the database as it is at one
// moment, and the files of its blobs. Files that are never changed are linked, where the
// file system can do that. The copy is not durable. It is a complete repo: opened
// elsewhere, it continues after the sequence number and the rev of that moment, see tick.
//
// Errors: ErrClosed, and those of the file system.
func (r *Repo) Copy(ctx context.Context, dir string) error {
	v, err := r.acquire() // Close waits for it
	if err != nil {
		return err
	}
	defer r.release(v)
	r.copying.RLock()
	defer r.copying.RUnlock()
	if err := r.store.Checkpoint(dir); err != nil {
		return fmt.Errorf("copy repo: %w", err)
	}
	if err := r.copyBlobs(ctx, dir); err != nil {
		return fmt.Errorf("copy blobs: %w", err)
	}
	return nil
}

// copyBlobs links the blobs' files. Those that are newer than the copied database have no
// row in it, and the first Open of the copy removes them.
func (r *Repo) copyBlobs(ctx context.Context, dir string) error {
	names, err := r.blobs.FS.List(r.blobs.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	to := r.blobs.FS.PathJoin(dir, r.blobs.FS.PathBase(r.blobs.Dir))
	if err := r.blobs.FS.MkdirAll(to, 0o700); err != nil {
		return err
	}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !r.blobs.IsBlob(name) {
			continue
		}
		err := vfs.LinkOrCopy(r.blobs.FS, r.blobs.FS.PathJoin(r.blobs.Dir, name), r.blobs.FS.PathJoin(to, name))
		if err != nil {
			return err
		}
	}
	return nil
}

// removeBlobs removes the files of blobs whose rows were deleted. While blobs are copied it
// only notes them for the next call: their rows may be in the copy.
func (w *writer) removeBlobs(blobs []block.Digest) {
	w.unused = append(w.unused, blobs...)
	if w.copying != nil {
		if !w.copying.TryLock() {
			return
		}
		defer w.copying.Unlock()
	}
	w.files.Remove(w.store, w.unused, w.cfg.Logger)
	w.unused = nil
}
