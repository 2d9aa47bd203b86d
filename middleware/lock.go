package middleware

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrInUse: another process has the data folder.
var ErrInUse = errors.New("is in use by another process")

// Lock keeps a second process out of a data folder, whose lock file is path. It
// goes with the process, however that ends.
func Lock(path string) (unlock func() error, err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the data folder %s: %w; options.data must name a folder that this process may write to", dir, err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("write to the data folder %s: %w; options.data must name a folder that this process may write to", dir, err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		f.Close()
		return nil, fmt.Errorf("the data folder %s %w: stop that one, or give this one a folder of its own (options.data)", dir, ErrInUse)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock the data folder %s: %w", dir, err)
	}
	return f.Close, nil
}

// instanceOf is the same text for all processes that Lock keeps apart by this
// lock file, which is there: the file of one running system. A copy of the
// folder has another file, and so another text.
func instanceOf(path string) (string, error) {
	var file unix.Stat_t
	if err := unix.Stat(path, &file); err != nil {
		return "", fmt.Errorf("look at the lock file %s: %w", path, err)
	}
	system, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil { // not on Linux
		name, _ := os.Hostname()
		system = []byte(name)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %d", system, file.Dev, file.Ino))
	return hex.EncodeToString(sum[:8]), nil
}
