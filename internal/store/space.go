package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// ErrNoSpace means that the disk has less free space than is needed. Nothing was
// written; the same call succeeds when there is space.
var ErrNoSpace = errors.New("too little free disk space to write")

// Free disk space, in bytes, below which Space is an error.
const (
	DefaultReserve = 1 << 30
	// MinReserve keeps a database from meeting a full disk, which it may not survive
	// without a restart.
	MinReserve = 1 << 20
)

// openingTakes is the space in bytes that opening a database needs apart from the
// batches of its log: manifest, options and the beginning of a new log.
const openingTakes = 2 << 20

// roomToOpen returns an error if the disk can't take what opening the database
// writes: the batches of its log as tables, and a few small files. When Pebble can't
// write them it may keep the lock of the folder until the process ends. Free space
// is no promise, because of quotas: so the space is written once.
func (s *Store) roomToOpen() error {
	usage, err := s.cfg.FS.GetDiskUsage(s.cfg.Dir)
	if err != nil {
		return nil // there is no database yet, or the file system doesn't know
	}
	inLog, err := s.logSize()
	if err != nil {
		return err
	}
	if takes := inLog + openingTakes; usage.AvailBytes < takes {
		return fmt.Errorf("%w: %d KiB free in %s, opening %s can take %d KiB", ErrNoSpace, usage.AvailBytes>>10, s.cfg.Dir, s.cfg.Name, takes>>10)
	}
	if inLog == 0 {
		return nil
	}
	return s.tryWrite(inLog)
}

// logSize is the size in bytes of the logs in the folder.
func (s *Store) logSize() (size uint64, err error) {
	names, err := s.cfg.FS.List(s.cfg.Dir)
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		if filepath.Ext(name) != ".log" && !strings.HasPrefix(name, oldLogPrefix) {
			continue
		}
		if info, err := s.cfg.FS.Stat(s.cfg.FS.PathJoin(s.cfg.Dir, name)); err == nil {
			size += uint64(info.Size())
		}
	}
	return size, nil
}

// tryWrite writes a file of that size and removes it.
func (s *Store) tryWrite(size uint64) error {
	name := s.cfg.FS.PathJoin(s.cfg.Dir, "000000.dbtmp") // which Pebble removes after a crash
	f, err := s.cfg.FS.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	zeros := make([]byte, 1<<20)
	for ; size > 0 && err == nil; size -= min(size, uint64(len(zeros))) {
		_, err = f.Write(zeros[:min(size, uint64(len(zeros)))])
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close(), s.cfg.FS.Remove(name))
}

// FreeSpace returns the bytes that this process may still write to the file system
// of a folder.
func FreeSpace(dir string) (uint64, error) {
	usage, err := vfs.Default.GetDiskUsage(dir)
	return usage.AvailBytes, err
}

// Space wraps ErrNoSpace when the disk has less free space than the reserve. Pebble
// stalls or fails on a full disk, so writes end before that.
func (s *Store) Space() error {
	usage, err := s.cfg.FS.GetDiskUsage(s.cfg.Dir)
	if err != nil {
		return nil // the file system doesn't know, or the write will fail as well
	}
	if usage.AvailBytes >= s.cfg.Reserve {
		return nil
	}
	return fmt.Errorf("%w: %d MiB free in %s, the reserve is %d MiB", ErrNoSpace, usage.AvailBytes>>20, s.cfg.Dir, s.cfg.Reserve>>20)
}
