package store

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

// OwnerOnly returns a file system whose new folders and files only their owner can
// read. Pebble would make them readable by all users.
func OwnerOnly(fs vfs.FS) vfs.FS { return ownerOnly{fs} }

type ownerOnly struct{ vfs.FS }

func (o ownerOnly) MkdirAll(dir string, _ os.FileMode) error { return o.FS.MkdirAll(dir, 0o700) }

func (o ownerOnly) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return restrict(o.FS.Create(name, category))
}

func (o ownerOnly) OpenReadWrite(name string, category vfs.DiskWriteCategory, options ...vfs.OpenOption) (vfs.File, error) {
	return restrict(o.FS.OpenReadWrite(name, category, options...))
}

// Lock creates the file first, so that only its owner can read it.
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

// Unwrap lets Pebble detect the type of the file system.
func (o ownerOnly) Unwrap() vfs.FS { return o.FS }

// restrict removes the access of other users to a file that was just opened.
func restrict(f vfs.File, err error) (vfs.File, error) {
	if err != nil || f.Fd() == vfs.InvalidFd {
		return f, err
	}
	// This fails on a file system without permissions.
	_ = unix.Fchmod(int(f.Fd()), 0o600)
	return f, nil
}
