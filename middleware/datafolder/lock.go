package datafolder

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrInUse means that another process has the data folder open.
var ErrInUse = errors.New("data folder in use by another process")

// Lock locks a data folder, whose lock file is path, against other processes, and
// creates both if necessary. The lock ends with the process. A folder in which a restore
// has not ended is refused.
func Lock(path string) (unlock func() error, err error) {
	unlock, err = lockFolder(path)
	if err != nil {
		return nil, err
	}
	staging := filepath.Join(filepath.Dir(path), restoringFolder)
	if _, err := os.Lstat(staging); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = fmt.Errorf("a restore into %s was interrupted: run `tidings restore` again", filepath.Dir(path))
		}
		return nil, errors.Join(err, unlock())
	}
	return unlock, nil
}

func lockFolder(path string) (unlock func() error, err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create the data folder %s: %w; options.data must be a folder that this process can write to", dir, err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("write to the data folder %s: %w; options.data must be a folder that this process can write to", dir, err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		f.Close()
		return nil, fmt.Errorf("%w: %s; stop that process, or set options.data to another folder", ErrInUse, dir)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock the data folder %s: %w", dir, err)
	}
	return f.Close, nil
}

// Instance returns an identifier of a lock file on the running system. It is the same
// for all processes that Lock excludes from each other, and differs for a copy of the
// folder and after a reboot.
func Instance(path string) (string, error) {
	var file unix.Stat_t
	if err := unix.Stat(path, &file); err != nil {
		return "", fmt.Errorf("stat the lock file %s: %w", path, err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil { // not on Linux
		name, _ := os.Hostname()
		boot = []byte(name)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %d", boot, file.Dev, file.Ino))
	return hex.EncodeToString(sum[:8]), nil
}
