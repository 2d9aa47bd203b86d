package layout

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tidings-dev/tidings/internal/store"
)

// FormatNumber is the version of the layout.
const FormatNumber = 3 // 2: the store had a log of its own; 1: before that

const memTable = 6 << 20

// ErrNotExist: there is no repo in the folder.
var ErrNotExist = errors.New("repo does not exist")

// Options describe the database. All fields are required.
type Options struct {
	FS        vfs.FS
	Reserve   uint64 // bytes of free disk below which writes are refused
	CacheSize int64  // bytes of blocks that are kept in memory
	Logger    *slog.Logger
}

// Exists reports whether dir holds a repo. It doesn't open it.
func Exists(fs vfs.FS, dir string) bool {
	return store.Exists(fs, dir)
}

// Open opens the database in dir for writing, creating it if necessary.
func Open(dir string, o Options) (*store.Store, error) {
	s, err := store.Open(config(dir, o))
	if errors.Is(err, store.ErrLog) {
		err = fmt.Errorf("%w: %w", err, ErrDamaged)
	}
	return s, err
}

// OpenReadOnly opens the database of a stopped repo.
func OpenReadOnly(dir string, o Options) (*store.Store, error) {
	s, err := OpenDamaged(dir, o)
	if err != nil {
		return nil, err
	}
	if damage := s.Damage(); damage != nil {
		s.Close()
		return nil, fmt.Errorf("%w: %w", damage, ErrDamaged)
	}
	return s, nil
}

// OpenDamaged is OpenReadOnly that also opens a database with a damaged log, to
// verify or repair it: see Store.Damage.
func OpenDamaged(dir string, o Options) (*store.Store, error) {
	if !Exists(o.FS, dir) {
		return nil, ErrNotExist
	}
	c := config(dir, o)
	c.ReadOnly = true
	return store.Open(c)
}

func config(dir string, o Options) store.Config {
	return store.Config{
		Dir:       dir,
		Name:      "repo",
		FormatKey: KeyFormat,
		Format:    FormatNumber,
		Reserve:   o.Reserve,
		CacheSize: o.CacheSize + 2*memTable,
		MemTable:  memTable,
		Apart:     store.Range{Start: []byte(PrefixEvent), End: End(PrefixEvent)},
		FS:        o.FS,
		Logger:    o.Logger,
	}
}
