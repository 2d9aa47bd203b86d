package store

import (
	"fmt"
	"runtime"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// disk is the file system that Pebble sees. Pebble panics when the fsync of a
// directory fails, also on goroutines of its own where nobody can recover, and
// that would end the registry around us. Here the error is noted like those of
// Fatalf, and the goroutine ends.
type disk struct {
	vfs.FS
	s *Store
}

func (d disk) OpenDir(name string) (vfs.File, error) {
	f, err := d.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return directory{f, d.s}, nil
}

// Unwrap lets Pebble find what kind of file system it is on.
func (d disk) Unwrap() vfs.FS { return d.FS }

type directory struct {
	vfs.File
	s *Store
}

func (d directory) Sync() error {
	if err := d.File.Sync(); err != nil {
		d.s.setFatal(fmt.Errorf("sync directory: %w", err))
		runtime.Goexit()
	}
	return nil
}
