package repair

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	indigo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/atproto/repo/archive"
	"github.com/tidings-dev/tidings/atproto/repo/layout"
	"github.com/tidings-dev/tidings/internal/store"
)

// Restored is the result of Restore.
type Restored struct {
	From    string // the rev of the CAR file
	Signed  bool   // by a key of this account
	Head    repo.Head
	Backup  string // folder of the previous repo
	Records int64
	Blobs   int64 // referred to, and in the CAR file
	Missing int64 // referred to, and stored nowhere
}

// Restore is repo.Import for a stopped repo and for a CAR file of any size:
// memory doesn't grow with it. The repo gets the records and the blobs of the file
// by one fresh commit and its #sync. The event log continues,
// and the previous repo is kept next to the new one (see rebuild).
//
// Errors: repo.ErrInvalidCAR, ErrTooLarge, ErrNoSpace, and a damaged head.
// Nothing was changed.
func Restore(ctx context.Context, cfg repo.Config, old []atcrypto.PublicKey, in io.Reader) (Restored, error) {
	cfg, err := cfg.WithDefaults()
	if err != nil {
		return Restored{}, fmt.Errorf("import: %w", err)
	}
	s, err := layout.OpenReadOnly(cfg.Dir, cfg.Layout())
	if err != nil {
		return Restored{}, fmt.Errorf("import into %s: %w", cfg.Dir, err)
	}
	var problems error
	v, err := newVerifier(cfg, s, old, func(p Problem) { problems = errors.Join(problems, errors.New(p.String())) }, nil)
	if err == nil {
		err = v.readHead()
	}
	if v != nil && v.head.Rev == "" {
		err = errors.Join(err, problems)
	}
	if err != nil {
		return Restored{}, errors.Join(fmt.Errorf("import into %s: %w", cfg.Dir, err), s.Close())
	}
	r := &restorer{rescue: rescue{cfg: Config{Config: cfg, Old: old}, from: s, verifier: v, done: &Result{}}}
	if err := r.run(ctx, in); err != nil {
		return Restored{}, fmt.Errorf("import into %s: %w", cfg.Dir, err)
	}
	return r.restored, nil
}

// restorer rebuilds a repo from a CAR file and the old event log.
type restorer struct {
	rescue
	restored Restored
}

func (r *restorer) run(ctx context.Context, in io.Reader) (err error) {
	r.restored.Backup, err = r.replace("before-import", func() error { return r.build(ctx, in) })
	return err
}

func (r *restorer) build(ctx context.Context, in io.Reader) error {
	commit, err := r.read(ctx, in)
	if err != nil {
		return err
	}
	if err := errors.Join(r.copyEvents(ctx), r.copyMoved(ctx)); err != nil {
		return err
	}
	head := r.verifier.head
	root, err := r.to.derive(ctx, func(block.Digest, string) string { return head.Rev }, r.blob)
	if err != nil {
		return err
	}
	if root != commit.Data {
		return archive.Invalid("its records make another tree than the signed one")
	}
	if err := r.to.sweep(); err != nil {
		return err
	}
	if commit.Rev > head.Rev && archive.CheckRev(commit, r.cfg.Now()) == nil {
		head.Rev = commit.Rev // subscribers of another host may know that one
	}
	r.restored.Head, err = r.to.finish(head, root, true, r.dropped)
	return err
}

// read copies the records and the blobs of the CAR file to the new repo.
func (r *restorer) read(ctx context.Context, in io.Reader) (*indigo.Commit, error) {
	a := archive.Archive{DID: r.cfg.DID, Blocks: &importedBlocks{rebuild: r.to}, Blob: r.to.receiveBlob}
	commit, err := a.Read(ctx, in)
	if err != nil {
		return nil, err
	}
	r.restored.From, r.restored.Signed = commit.Rev, r.verifier.signer(commit) != nil
	err = a.Records(ctx, commit.Data, func(path string, c cid.Cid, data []byte) error {
		if data == nil {
			return archive.Invalid("record %s is missing", path)
		}
		r.restored.Records++
		return r.to.set(layout.RecordKey(path), append(block.DigestOf(c), data...))
	})
	if err != nil {
		return nil, err
	}
	if err := r.to.flush(); err != nil {
		return nil, err
	}
	return commit, r.to.batch.DeleteRange([]byte(prefixImported), layout.End(prefixImported))
}

// blob returns the row of a blob that came with the CAR file, or was there before.
func (r *restorer) blob(ctx context.Context, d block.Digest, record []byte) (layout.BlobRow, error) {
	info, err := r.cfg.FS.Stat(r.to.files.Path(d))
	if err != nil {
		row, err := r.oldBlob(ctx, d, record)
		if !row.Stored {
			r.restored.Missing++
		}
		return row, err
	}
	r.restored.Blobs++
	row := describedBlob(record, d)
	row.Stored, row.Size = true, info.Size()
	return row, nil
}

// prefixImported is the prefix of the file's blocks until its tree was walked, in
// a database that is not yet a repo.
const prefixImported = "z/"

// importedBlocks is the archive.Blocks of a restorer.
type importedBlocks struct {
	*rebuild
	pending bool // some can't be read before a flush
}

func (b *importedBlocks) Put(digest, data []byte) error {
	b.pending = true
	return b.set(append([]byte(prefixImported), digest...), data)
}

func (b *importedBlocks) Get(digest, buf []byte) (data []byte, ok bool, err error) {
	if b.pending {
		b.pending = false
		if err := b.flush(); err != nil {
			return buf, false, err
		}
	}
	val, err := store.Read(b.store, append([]byte(prefixImported), digest...))
	if errors.Is(err, store.ErrNotFound) {
		return buf, false, nil
	}
	return append(buf, val...), err == nil, err
}

// receiveBlob stores a blob in the new repo.
func (r *rebuild) receiveBlob(d block.Digest, body io.Reader) error {
	path, file, err := r.files.Create()
	if err != nil {
		return layout.DiskFull(err)
	}
	sum := sha256.New()
	_, err = io.Copy(io.MultiWriter(sum, file), body) // the file is last, since it may change the bytes
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return layout.DiskFull(err)
	}
	if block.Digest(sum.Sum(nil)) != d {
		return archive.Invalid("blob %s: bytes don't match the CID, or are truncated", d.BlobCID())
	}
	if err := r.store.Space(); err != nil {
		return err
	}
	return r.cfg.FS.Rename(path, r.files.Path(d))
}

// sweep removes the files of blobs that no record refers to.
func (r *rebuild) sweep() error {
	if err := r.flush(); err != nil {
		return err
	}
	return r.files.Sweep(r.store, r.cfg.Logger)
}
