package journal

import (
	"errors"
	"os"
)

// ErrReadOnly is returned for a write to a journal that OpenReadOnly opened.
var ErrReadOnly = errors.New("the journal is open for reading only")

// OpenReadOnly opens a journal that no process has open, to read it. It changes nothing on
// disk: an incomplete write at the end of a stream is ignored, and segments that every
// cursor has passed stay. Config.Limit and Config.Dropped have no effect.
func OpenReadOnly(cfg Config) (*Journal, error) {
	if cfg.FS == nil {
		cfg.FS = osFS{}
	}
	cfg.FS, cfg.readOnly = readOnlyFS{cfg.FS}, true
	return Open(cfg)
}

// readOnlyFS is a file system without changes. What recovery would remove or truncate stays.
type readOnlyFS struct{ FS }

func (readOnlyFS) MkdirAll(string) error       { return nil }
func (readOnlyFS) Rename(string, string) error { return ErrReadOnly }
func (readOnlyFS) Remove(string) error         { return nil }
func (readOnlyFS) SyncDir(string) error        { return nil }

func (r readOnlyFS) OpenFile(name string, flag int) (File, error) {
	if flag&os.O_CREATE != 0 {
		return nil, ErrReadOnly
	}
	f, err := r.FS.OpenFile(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	return readOnlyFile{f}, nil
}

type readOnlyFile struct{ File }

func (readOnlyFile) WriteAt([]byte, int64) (int, error) { return 0, ErrReadOnly }
func (readOnlyFile) Truncate(int64) error               { return nil }
func (readOnlyFile) Sync() error                        { return nil }
