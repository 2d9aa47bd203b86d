package backup

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tidings-dev/tidings/internal/private"
)

// Restore copies the files of a backup to a new folder, which is durable when it returns,
// and compares them with the list. The error is ErrNoBackup, ErrDamaged, or one of the
// file systems; the folder is then removed. Nothing is linked, so that the program can
// change the files without changing the backup.
func Restore(ctx context.Context, dir, to string, progress func(done, total int64)) (Header, Result, error) {
	_, total, err := Total(dir)
	if err != nil {
		return Header{}, Result{}, err
	}
	if err := os.Mkdir(to, 0o700); err != nil {
		return Header{}, Result{}, err
	}
	r := &restorer{dir: dir, to: to}
	r.read = func(n int64) {
		r.done += n
		if progress != nil {
			progress(r.done, total)
		}
	}
	header, err := r.run(ctx)
	if err != nil {
		return Header{}, Result{}, errors.Join(err, os.RemoveAll(to))
	}
	return header, r.result, nil
}

type restorer struct {
	dir, to string
	result  Result
	done    int64
	read    func(int64)
}

func (r *restorer) run(ctx context.Context) (Header, error) {
	l, err := openList(r.dir)
	if err != nil {
		return Header{}, err
	}
	defer l.Close()
	for {
		e, err := l.entry()
		if err == io.EOF {
			return l.Header, syncFolders(r.to, private.SyncDir)
		}
		if err == nil {
			err = r.file(ctx, e)
		}
		if err != nil {
			return Header{}, err
		}
	}
}

func (r *restorer) file(ctx context.Context, e entry) error {
	from, to := filepath.Join(r.dir, e.Path), filepath.Join(r.to, e.Path)
	info, err := os.Lstat(from)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %s is missing", ErrDamaged, from)
	case err != nil:
		return err
	case !info.Mode().IsRegular() || info.Size() != e.Size:
		return fmt.Errorf("%w: %s has not the size that the list has, %d bytes", ErrDamaged, from, e.Size)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	sum, _, err := copyFile(ctx, from, to, r.read)
	if err != nil {
		return err
	}
	if hex.EncodeToString(sum) != e.SHA256 {
		return fmt.Errorf("%w: the content of %s has changed", ErrDamaged, from)
	}
	r.result.Files++
	r.result.Bytes += e.Size
	r.result.Copied++
	r.result.CopiedBytes += e.Size
	return nil
}
