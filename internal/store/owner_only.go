package store

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

// OwnerOnly makes folders and files that only their owner may read, whatever is
// asked for: Pebble's own are for everybody.
func OwnerOnly(fs vfs.FS) vfs.FS { return ownerOnly{fs} }

type ownerOnly struct{ vfs.FS }

func (o ownerOnly) MkdirAll(dir string, _ os.FileMode) error { return o.FS.MkdirAll(dir, 0o700) }

func (o ownerOnly) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return closed(o.FS.Create(name, category))
}

func (o ownerOnly) OpenReadWrite(name string, category vfs.DiskWriteCategory, options ...vfs.OpenOption) (vfs.File, error) {
	return closed(o.FS.OpenReadWrite(name, category, options...))
}

// Lock makes the file first, as one of ours.
func (o ownerOnly) Lock(name string) (io.Closer, error) {
	if _, err := o.FS.Stat(name); errors.Is(err, fs.ErrNotExist) {
		f, err := o.Create(name, vfs.WriteCategoryUnspecified)
		if err != nil {
			return nil, err
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
	}
	return o.FS.Lock(name)
}

// Unwrap lets Pebble find what kind of file system it is on.
func (o ownerOnly) Unwrap() vfs.FS { return o.FS }

func closed(f vfs.File, err error) (vfs.File, error) {
	if err != nil || f.Fd() == vfs.InvalidFd {
		return f, err
	}
	// A file system without permissions may refuse.
	_ = unix.Fchmod(int(f.Fd()), 0o600)
	return f, nil
}
