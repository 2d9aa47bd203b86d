// Package private keeps files and folders from other users of the machine.
package private

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// maxFile is more than any secret takes, in bytes.
const maxFile = 64 << 10

// ErrOpen: others than its owner can read a file.
var ErrOpen = errors.New("can be read by others than its owner")

// CreateFile writes a file that only its owner may read. An existing one is
// left alone: the error is fs.ErrExist then. A crash leaves the whole file or
// none.
func CreateFile(path string, content []byte) error {
	return placeFile(path, content, os.Link)
}

// ReplaceFile is CreateFile for a file that may exist.
func ReplaceFile(path string, content []byte) error {
	return placeFile(path, content, os.Rename)
}

func placeFile(path string, content []byte, place func(from, to string) error) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	temp, err := os.CreateTemp(dir, ".secret-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	_, err = temp.Write(content)
	err = errors.Join(err, temp.Sync(), temp.Close())
	if err != nil {
		return err
	}
	if err := place(temp.Name(), path); err != nil {
		return err
	}
	return SyncDir(dir)
}

// SyncDir makes the names in a folder durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// ReadFile reads a secret of up to 64 KiB. One that others than its owner
// may read is refused with ErrOpen; a missing one is fs.ErrNotExist.
func ReadFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: path, Err: errors.New("not a regular file")}
	}
	if info.Mode().Perm()&others != 0 {
		return nil, fmt.Errorf("%s %w (mode %04o): chmod 600 %s", path, ErrOpen, info.Mode().Perm(), path)
	}
	content, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(content) > maxFile {
		return nil, &fs.PathError{Op: "read", Path: path, Err: errors.New("too long for what it should hold")}
	}
	return content, nil
}
