package private

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// others are the permissions of all users but the owner.
const others fs.FileMode = 0o077

// Close removes the permissions of other users from files and folders, recursively. It
// returns the paths that were open to them. Missing paths, and symbolic links inside the
// folders, are skipped. The error has the paths that could not be changed.
func Close(paths ...string) (opened []string, err error) {
	for _, path := range paths {
		path, failed := filepath.EvalSymlinks(path)
		if errors.Is(failed, fs.ErrNotExist) {
			continue
		}
		if failed == nil {
			failed = filepath.WalkDir(path, func(path string, entry fs.DirEntry, failed error) error {
				if failed == nil {
					var changed bool
					if changed, failed = closeOne(path, entry); changed {
						opened = append(opened, path)
					}
				}
				if failed != nil && !errors.Is(failed, fs.ErrNotExist) {
					err = errors.Join(err, failed)
				}
				return nil
			})
		}
		err = errors.Join(err, failed)
	}
	return opened, err
}

func closeOne(path string, entry fs.DirEntry) (changed bool, err error) {
	if entry.Type()&fs.ModeSymlink != 0 {
		return false, nil
	}
	info, err := entry.Info()
	if err != nil || info.Mode().Perm()&others == 0 {
		return false, err
	}
	return true, os.Chmod(path, info.Mode()&^others)
}
