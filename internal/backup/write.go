package backup

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tidings-dev/tidings/internal/exchange"
	"github.com/tidings-dev/tidings/internal/private"
)

// Config configures Write.
type Config struct {
	From     string // folder to be copied; Write does not change it
	Dir      string // the backup, as Target returned it
	Header   Header
	Progress func(done, total int64) // bytes; may be nil

	syncDir func(dir string) error // for tests; nil: private.SyncDir
}

// A Result says what a backup or a restore has done with the files, in bytes and numbers.
type Result struct {
	Files       int64 `json:"files"`
	Bytes       int64 `json:"bytes"`
	Kept        int64 `json:"kept"` // files that the previous backup has, unchanged
	KeptBytes   int64 `json:"keptBytes"`
	Linked      int64 `json:"linked"` // new files that share their disk space with the source
	LinkedBytes int64 `json:"linkedBytes"`
	Copied      int64 `json:"copied"`
	CopiedBytes int64 `json:"copiedBytes"`
}

// Write makes a backup of a folder, in place of the one in cfg.Dir, if there is one.
// Nothing may change the folder meanwhile.
func Write(ctx context.Context, cfg Config) (Result, error) {
	w := &writer{Config: cfg, tmp: cfg.Dir + unfinished}
	if w.syncDir == nil {
		w.syncDir = private.SyncDir
	}
	if err := w.run(ctx); err != nil {
		return Result{}, errors.Join(fmt.Errorf("write backup: %w", err), os.RemoveAll(w.tmp))
	}
	return w.result, nil
}

// Suffixes of folders next to a backup.
const (
	unfinished = ".unfinished" // the backup that is being written; after replace, the previous one
	replaced   = ".replaced"   // the previous backup, where two folders cannot be exchanged
)

type writer struct {
	Config
	tmp    string
	old    *list // of the previous backup; nil: there is none
	list   *listWriter
	result Result
	done   int64
	total  int64
}

func (w *writer) run(ctx context.Context) error {
	err := w.prepare(ctx)
	if err != nil {
		return err
	}
	if w.old != nil {
		defer w.old.Close()
	}
	if w.list, err = createList(w.tmp, w.Header); err != nil {
		return err
	}
	defer w.list.file.Close()
	if err := w.walk(ctx, func(path string, info fs.FileInfo) error { return w.add(ctx, path, info) }); err != nil {
		return err
	}
	if err := w.list.finish(); err != nil {
		return err
	}
	if err := syncFolders(w.tmp, w.syncDir); err != nil {
		return err
	}
	return w.replace()
}

// prepare removes what an interrupted Write has left, and adds up the sizes.
func (w *writer) prepare(ctx context.Context) error {
	if err := os.RemoveAll(w.tmp); err != nil {
		return err
	}
	if _, err := os.Stat(w.Dir); errors.Is(err, fs.ErrNotExist) {
		if err := os.Rename(w.Dir+replaced, w.Dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := os.Mkdir(w.tmp, 0o700); err != nil {
		return err
	}
	var err error
	if w.old, err = openList(w.Dir); err != nil && !errors.Is(err, ErrNoBackup) && !errors.Is(err, ErrDamaged) {
		return err
	}
	return w.walk(ctx, func(_ string, info fs.FileInfo) error { w.total += info.Size(); return nil })
}

// walk calls visit with each file of the source, by its path relative to it.
func (w *writer) walk(ctx context.Context, visit func(path string, info fs.FileInfo) error) error {
	return filepath.WalkDir(w.From, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(w.From, path)
		if err != nil || rel == "." {
			return err
		}
		switch {
		case d.IsDir():
			if err := os.Mkdir(filepath.Join(w.tmp, rel), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
			return nil
		case !d.Type().IsRegular():
			return fmt.Errorf("%s is neither a file nor a folder", path)
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return visit(filepath.ToSlash(rel), info)
	})
}

// add adds a file to the backup.
func (w *writer) add(ctx context.Context, path string, info fs.FileInfo) error {
	e := entry{Path: path, Size: info.Size(), Modified: info.ModTime().UnixNano()}
	from, to := filepath.Join(w.From, path), filepath.Join(w.tmp, path)
	kept, err := w.keep(&e, info, to)
	if err != nil {
		return err
	}
	if !kept {
		if err := w.transfer(ctx, &e, from, to); err != nil {
			return err
		}
	}
	w.result.Files++
	w.result.Bytes += e.Size
	return w.list.add(e)
}

// keep links a file that the previous backup has. It reports whether it did.
func (w *writer) keep(e *entry, info fs.FileInfo, to string) (bool, error) {
	if w.old == nil {
		return false, nil
	}
	before, found := w.old.find(e.Path)
	if !found || before.Size != e.Size || before.Modified != e.Modified {
		return false, nil
	}
	previous := filepath.Join(w.Dir, e.Path)
	there, err := os.Lstat(previous)
	if err != nil || !there.Mode().IsRegular() || there.Size() != e.Size || there.ModTime() != info.ModTime() {
		return false, nil
	}
	if os.Link(previous, to) != nil {
		return false, nil // the file system has no links
	}
	e.SHA256 = before.SHA256
	w.result.Kept++
	w.result.KeptBytes += e.Size
	w.progress(e.Size)
	return true, nil
}

// transfer links or copies a file of the source.
func (w *writer) transfer(ctx context.Context, e *entry, from, to string) error {
	if os.Link(from, to) == nil {
		w.result.Linked++
		w.result.LinkedBytes += e.Size
		sum, err := hashOf(ctx, from, w.progress)
		e.SHA256 = hex.EncodeToString(sum)
		return err
	}
	w.result.Copied++
	w.result.CopiedBytes += e.Size
	sum, size, err := copyFile(ctx, from, to, w.progress)
	if err == nil && size != e.Size {
		err = fmt.Errorf("%s was changed while it was copied", from)
	}
	e.SHA256 = hex.EncodeToString(sum)
	return err
}

func (w *writer) progress(n int64) {
	w.done += n
	if w.Progress != nil {
		w.Progress(w.done, w.total)
	}
}

// syncFolders makes the names in a folder durable, recursively.
func syncFolders(dir string, syncDir func(dir string) error) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return syncDir(path)
	})
}

// replace puts the new backup in the place of the previous one.
func (w *writer) replace() error {
	entries, err := os.ReadDir(w.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	old := w.tmp
	switch {
	case len(entries) == 0: // missing, or an empty folder, which a rename replaces
		err = os.Rename(w.tmp, w.Dir)
	default:
		if err = exchange.Paths(w.tmp, w.Dir); err != nil { // prepare continues this after a crash
			old = w.Dir + replaced
			err = errors.Join(os.RemoveAll(old), os.Rename(w.Dir, old))
			if err == nil {
				err = os.Rename(w.tmp, w.Dir)
			}
		}
	}
	if err == nil {
		err = w.syncDir(filepath.Dir(w.Dir))
	}
	if err == nil {
		err = os.RemoveAll(old)
	}
	return err
}
