// Package private protects files and folders from other users of the machine.
package private

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// maxSecret limits the size of a secret, in bytes.
const maxSecret = 4096

// CreateFile writes a file that only its owner can read. If it exists, the error is
// fs.ErrExist. A crash leaves the whole file or none.
func CreateFile(path string, content []byte) error {
	return writeFile(path, content, os.Link)
}

// ReplaceFile is CreateFile for a file that may exist.
func ReplaceFile(path string, content []byte) error {
	return writeFile(path, content, os.Rename)
}

// writeFile writes a temporary file, which link then gives its name.
func writeFile(path string, content []byte, link func(from, to string) error) (err error) {
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
	if err := link(temp.Name(), path); err != nil {
		return err
	}
	return SyncDir(dir)
}

// SyncDir fsyncs a folder, which makes the creation, renaming and removal of files in it
// durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// writable are the permissions by which other users can replace the content of a file.
const writable fs.FileMode = 0o022

// ErrEmpty is the error of ReadFile for a file that has nothing but white space.
var ErrEmpty = errors.New("is empty")

// ReadFile reads a secret of up to 4 KiB. It fails if other users can write to the file, and
// if it is empty. That they can read it is accepted, since container platforms mount secrets
// with the modes 0440 and 0444; see OpenToAll. The error is fs.ErrNotExist if the file is
// missing.
func ReadFile(path string) ([]byte, error) {
	content, err := ReadLimited(path, maxSecret)
	if err == nil && len(bytes.TrimSpace(content)) == 0 {
		return nil, fmt.Errorf("%s %w", path, ErrEmpty)
	}
	return content, err
}

// ReadLimited is ReadFile with another limit, in bytes, for a file that may be empty.
func ReadLimited(path string, limit int64) ([]byte, error) {
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
	if info.Mode().Perm()&writable != 0 {
		return nil, fmt.Errorf("%s can be changed by other users (mode %04o): chmod 600 %s", path, info.Mode().Perm(), path)
	}
	content, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(content)) > limit {
		return nil, &fs.PathError{Op: "read", Path: path, Err: errors.New("file too large")}
	}
	return content, nil
}

// OpenToAll reports whether every user of the machine can read a file. A missing file is not
// open.
func OpenToAll(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().Perm()&0o004 != 0
}
