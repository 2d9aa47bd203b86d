package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// ErrNoSpace means that the disk has too little free space. Nothing was written; the
// same call succeeds once there is space.
var ErrNoSpace = errors.New("too little free disk space to write")

// Free disk space, in bytes, below which Space is an error.
const (
	DefaultReserve = 1 << 30
	// MinReserve keeps the disk from becoming full, which may require a restart.
	MinReserve = 1 << 20
)

// openSpace is the space in bytes that opening a database needs in addition to the
// batches of its log: manifest, options and the beginning of a new log.
const openSpace = 2 << 20

// checkOpenSpace returns an error if the disk lacks the space to open the database:
// for the batches of its log as tables, and a few small files. If Pebble could not
// write them, it might keep the lock of the folder until the process ends. Because of
// quotas, free space does not guarantee that writes succeed, so a file of that size is
// written.
func (s *Store) checkOpenSpace() error {
	usage, err := s.cfg.FS.GetDiskUsage(s.cfg.Dir)
	if err != nil {
		return nil // there is no database yet, or the file system does not report it
	}
	inLog, err := s.logSize()
	if err != nil {
		return err
	}
	if needed := inLog + openSpace; usage.AvailBytes < needed {
		return fmt.Errorf("%w: %d KiB free in %s, opening %s may need %d KiB", ErrNoSpace, usage.AvailBytes>>10, s.cfg.Dir, s.cfg.Name, needed>>10)
	}
	if inLog == 0 {
		return nil
	}
	return s.tryWrite(inLog)
}

// logSize returns the size in bytes of the logs in the folder.
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
	name := s.cfg.FS.PathJoin(s.cfg.Dir, "000000.dbtmp") // Pebble removes it after a crash
	f, err := s.cfg.FS.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	zeros := make([]byte, min(size, 1<<20))
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

// Space returns an error that wraps ErrNoSpace while the free space is below the
// reserve. Pebble stalls or fails on a full disk, so writes must stop before that.
func (s *Store) Space() error {
	usage, err := s.cfg.FS.GetDiskUsage(s.cfg.Dir)
	if err != nil {
		return nil // the file system does not report it, or the write will fail as well
	}
	if usage.AvailBytes >= s.cfg.Reserve {
		return nil
	}
	return fmt.Errorf("%w: %d MiB free in %s, the reserve is %d MiB", ErrNoSpace, usage.AvailBytes>>20, s.cfg.Dir, s.cfg.Reserve>>20)
}
