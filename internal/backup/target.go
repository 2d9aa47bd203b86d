package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Target checks that a backup of the folder data may be written to dir, which is an
// absolute path whose parent exists, and returns its path without symbolic links.
func Target(dir, data string) (string, error) {
	if !filepath.IsAbs(dir) {
		return "", fmt.Errorf("%q is not an absolute path", dir)
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(filepath.Clean(dir)))
	if err != nil {
		return "", fmt.Errorf("the folder that will contain the backup must exist: %w", err)
	}
	target := filepath.Join(parent, filepath.Base(filepath.Clean(dir)))
	if resolved, err := filepath.EvalSymlinks(target); err == nil {
		target = resolved
	}
	if data, err = filepath.Abs(data); err != nil {
		return "", err
	}
	if data, err = filepath.EvalSymlinks(data); err != nil {
		return "", err
	}
	if within(target, data) || within(data, target) {
		return "", fmt.Errorf("%s and the data folder %s must not contain each other", target, data)
	}
	return target, replaceable(target)
}

// within reports whether path is dir or in it.
func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// replaceable returns an error for a folder that Write must not replace.
func replaceable(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if device(dir) != device(filepath.Dir(dir)) {
		return fmt.Errorf("%s is the root of a file system: name a folder in it", dir)
	}
	if len(entries) == 0 {
		return nil
	}
	l, err := openList(dir)
	if errors.Is(err, ErrDamaged) {
		return nil // replacing it is all that can be done
	}
	if err != nil {
		return fmt.Errorf("%w; name a new folder, or a backup to replace", err)
	}
	return l.Close()
}

// device returns the number of a path's file system.
func device(path string) uint64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(stat.Dev)
	}
	return 0
}
