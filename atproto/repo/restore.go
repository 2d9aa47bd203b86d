package repo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	indigo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/cockroachdb/pebble/v2"
	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/internal/store"
)

// prefixSpool is where the blocks of a CAR lie until its tree has been walked,
// in a database that is not yet a repository.
const prefixSpool = "z/"

// Restored is what Restore did.
type Restored struct {
	From    string // the rev of the CAR
	Signed  bool   // by a key of this account
	Head    Head
	Aside   string // where what was there before is kept
	Records int64
	Blobs   int64 // that came with the CAR and are referred to
	Missing int64 // that are referred to, and stored nowhere
}

// Restore is Import for a repository that no server has open, and for a CAR of
// any size: memory does not grow with it. The repository becomes what the CAR
// has, whose blobs may be among its blocks, by one fresh commit and its #sync.
// The event log goes on. What was there before is kept beside it.
//
// Errors: ErrBadCAR, ErrNoSpace, and what Verify finds wrong with the head.
// Nothing was changed.
func Restore(ctx context.Context, cfg Config, old []atcrypto.PublicKey, in io.Reader) (Restored, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return Restored{}, fmt.Errorf("import: %w", err)
	}
	s, err := openReadOnly(cfg)
	if err != nil {
		return Restored{}, fmt.Errorf("import into %s: %w", cfg.Dir, err)
	}
	var wrong error
	v, err := newVerifier(cfg, s, old, func(p Problem) { wrong = errors.Join(wrong, errors.New(p.String())) })
	if err == nil {
		err = v.readHead()
	}
	if v != nil && v.head.Rev == "" {
		err = errors.Join(err, wrong)
	}
	if err != nil {
		return Restored{}, errors.Join(fmt.Errorf("import into %s: %w", cfg.Dir, err), s.Close())
	}
	i := &restorer{rescue: rescue{cfg: RepairConfig{Config: cfg, Old: old}, from: s, verifier: v, done: &Repaired{}}}
	if err := i.run(ctx, in); err != nil {
		return Restored{}, fmt.Errorf("import into %s: %w", cfg.Dir, err)
	}
	return i.restored, nil
}

// restorer makes a repository anew from a CAR and the old one's log.
type restorer struct {
	rescue
	restored Restored
}

func (i *restorer) run(ctx context.Context, in io.Reader) (err error) {
	defer func() {
		if i.from != nil {
			err = errors.Join(err, i.from.Close())
		}
	}()
	if i.to, err = newRebuild(i.cfg.Config); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, i.to.abandon())
		}
	}()
	commit, err := i.spool(ctx, in)
	if err != nil {
		return err
	}
	if err := i.tree(ctx, commit.Data); err != nil {
		return err
	}
	if err := errors.Join(i.events(ctx), i.keepPlace(ctx)); err != nil {
		return err
	}
	head := i.verifier.head
	root, err := i.to.derive(ctx, func(digest, string) string { return head.Rev }, i.blob)
	if err != nil {
		return err
	}
	if root != commit.Data {
		return badCAR("its tree is not the one that its records make")
	}
	if err := i.to.sweep(); err != nil {
		return err
	}
	known := head
	if from := (state{Head: Head{Rev: commit.Rev}}); commit.Rev > head.Rev && from.ahead(i.cfg.Now()) <= maxAhead {
		known.Rev = commit.Rev // who followed the account elsewhere knows that one
	}
	now, err := i.to.finish(known, root, true, i.gone)
	if err != nil {
		return err
	}
	err, i.from = i.from.Close(), nil
	if err != nil {
		return err
	}
	i.restored.Head = now.Head
	i.restored.Aside, err = i.to.replace("before-import")
	return err
}

// spool puts the blocks of the CAR into the new database, and its blobs into
// files. Every hash is checked.
func (i *restorer) spool(ctx context.Context, in io.Reader) (*indigo.Commit, error) {
	root, err := readCARSections(untilDone{ctx, in}, func(c cid.Cid, size int64, body io.Reader) error {
		if d, ok := digestOfBlob(c); ok {
			return i.to.receive(d, body)
		}
		if !ours(c) {
			return badCAR("block %s is neither a record nor a blob", c)
		}
		if size > maxRecord {
			return badCAR("block %s has %d bytes, at most %d", c, size, maxRecord)
		}
		data, err := io.ReadAll(body)
		if err != nil || int64(len(data)) != size {
			return badCAR("block %s is cut short", c)
		}
		if CIDOf(data) != c {
			return badCAR("block %s has other bytes than its CID says", c)
		}
		return i.to.set(spoolKey(c), data)
	})
	if errors.Is(err, errCAR) {
		return nil, badCAR("%w", err)
	}
	if err != nil {
		return nil, err
	}
	if err := i.to.flush(); err != nil {
		return nil, err
	}
	data, err := i.spooled(root)
	if err != nil {
		return nil, badCAR("its root %s is missing", root)
	}
	var commit indigo.Commit
	if err := commit.UnmarshalCBOR(bytes.NewReader(data)); err != nil {
		return nil, badCAR("its root %s is not a commit", root)
	}
	if err := commit.VerifyStructure(); err != nil {
		return nil, badCAR("its commit: %w", err)
	}
	if commit.DID != i.cfg.DID {
		return nil, badCAR("it is the repository of %s, not of %s", commit.DID, i.cfg.DID)
	}
	i.restored.From, i.restored.Signed = commit.Rev, i.verifier.signer(&commit) != nil
	return &commit, nil
}

func spoolKey(c cid.Cid) []byte { return append([]byte(prefixSpool), digestOf(c)...) }

func (i *restorer) spooled(c cid.Cid) ([]byte, error) {
	if !ours(c) {
		return nil, pebble.ErrNotFound
	}
	return store.Read(i.to.store, spoolKey(c))
}

// tree sets the records that the CAR's tree has.
func (i *restorer) tree(ctx context.Context, root cid.Cid) error {
	w := walk{
		load: func(c cid.Cid) ([]byte, error) {
			if err := ctx.Err(); err != nil {
				return nil, errStop{err}
			}
			return i.spooled(c)
		},
		entry: func(path string, c cid.Cid) error {
			i.restored.Records++
			data, err := i.spooled(c)
			if err != nil {
				return badCAR("record %s is missing", path)
			}
			if _, err := lexicon.Unmarshal(data); err != nil {
				return badCAR("record %s: %w", path, err)
			}
			return i.to.set(recordKey(path), append(digestOf(c), data...))
		},
		lost: func(c cid.Cid, why error) error { return badCAR("node %s of its tree: %w", c, why) },
	}
	if err := w.root(root); err != nil {
		return err
	}
	if err := i.to.flush(); err != nil {
		return err
	}
	return i.to.batch.DeleteRange([]byte(prefixSpool), after(prefixSpool), nil)
}

// blob is what came with the CAR, or was there before.
func (i *restorer) blob(ctx context.Context, d digest, record []byte) (blobRow, error) {
	info, err := i.cfg.FS.Stat(i.to.files.path(d))
	if err != nil {
		row, err := i.oldBlob(ctx, d, record)
		if !row.stored {
			i.restored.Missing++
		}
		return row, err
	}
	i.restored.Blobs++
	row := described(record, d)
	row.stored, row.size = true, info.Size()
	return row, nil
}

// receive stores a blob in the new repository.
func (r *rebuild) receive(d digest, body io.Reader) error {
	path, file, err := r.files.create()
	if err != nil {
		return diskFull(err)
	}
	sum := sha256.New()
	_, err = io.Copy(io.MultiWriter(sum, file), body) // the file may keep or change the bytes
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return diskFull(err)
	}
	if digest(sum.Sum(nil)) != d {
		return badCAR("blob %s has other bytes than its CID says, or is cut short", d.cid())
	}
	if err := r.store.Space(); err != nil {
		return err
	}
	return r.cfg.FS.Rename(path, r.files.path(d))
}

// sweep removes the files of blobs that no record refers to.
func (r *rebuild) sweep() error {
	if err := r.flush(); err != nil {
		return err
	}
	return r.files.sweep(&blobIndex{db: r.store}, r.cfg.Logger)
}
