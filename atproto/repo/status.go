package repo

import (
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// Status is a repository at a glance.
type Status struct {
	Head        Head
	Place       string        // where the account has moved to; empty: it is here
	Ahead       time.Duration // of the head's date before the clock; negative as a rule
	Collections []Collection  // sorted

	Blobs     int64 // that are stored
	BlobBytes int64
	Missing   int64 // blobs that a record refers to and nobody has uploaded

	Events      int64
	EventBytes  int64 // of frames
	OldestEvent uint64
	LostEvents  uint64 // the last that is no longer kept

	DiskBytes int64  // of the database and the blobs
	FreeBytes uint64 // of the disk; 0: not known
	Space     error  // why writes would be refused for lack of it
}

// Collection is a collection and how many records it has.
type Collection struct {
	NSID    string
	Records int64
}

// ReadStatus reads the keys of a repository, not the values, and changes
// nothing. Verify is what looks for damage. No other process may have it open.
func ReadStatus(cfg Config) (Status, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return Status{}, fmt.Errorf("read status: %w", err)
	}
	s, err := openReadOnly(cfg)
	if err != nil {
		return Status{}, fmt.Errorf("read status of the repository in %s: %w", cfg.Dir, err)
	}
	defer s.Close()
	st, err := readStatus(cfg, s)
	if err != nil {
		return st, fmt.Errorf("read status of the repository in %s: %w", cfg.Dir, err)
	}
	st.Space = s.Space()
	return st, nil
}

func readStatus(cfg Config, db pebble.Reader) (st Status, err error) {
	on, err := loadHead(cfg, db)
	if err != nil {
		return st, err
	}
	st.Head, st.Ahead = on.Head, on.ahead(cfg.Now())
	if st.Place, err = storedPlace(db); err != nil {
		return st, err
	}
	if st.Collections, err = collections(db); err != nil {
		return st, err
	}
	first, err := oldestEvent(db, on)
	if err != nil {
		return st, err
	}
	st.OldestEvent = first.seq
	if first.seq > 0 {
		st.EventBytes = int64(on.logged - first.logged)
	}
	if st.Events, err = countUnder(db, prefixEvent); err != nil {
		return st, err
	}
	if st.LostEvents, err = lastLost(db); err != nil {
		return st, err
	}
	if err := st.countBlobs(db); err != nil {
		return st, err
	}
	st.DiskBytes = sizeOf(cfg, cfg.Dir)
	if usage, err := cfg.FS.GetDiskUsage(cfg.Dir); err == nil {
		st.FreeBytes = usage.AvailBytes
	}
	return st, nil
}

func collections(db pebble.Reader) (all []Collection, err error) {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte(prefixRecord), UpperBound: after(prefixRecord)})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		name, _ := splitPath(string(it.Key()[len(prefixRecord):]))
		if n := len(all); n == 0 || all[n-1].NSID != name {
			all = append(all, Collection{NSID: name})
		}
		all[len(all)-1].Records++
	}
	return all, it.Error()
}

func countUnder(db pebble.Reader, prefix string) (n int64, err error) {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte(prefix), UpperBound: after(prefix)})
	if err != nil {
		return 0, err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		n++
	}
	return n, it.Error()
}

func (st *Status) countBlobs(db pebble.Reader) error {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte(prefixBlob), UpperBound: after(prefixBlob)})
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		val, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		row, err := decodeBlobRow(val)
		switch {
		case err != nil:
			return err
		case row.stored:
			st.Blobs++
			st.BlobBytes += row.size
		default:
			st.Missing++
		}
	}
	return it.Error()
}

// sizeOf adds up the files of a folder, as far as they can be seen.
func sizeOf(cfg Config, dir string) (total int64) {
	names, err := cfg.FS.List(dir)
	if err != nil {
		return 0
	}
	for _, name := range names {
		path := cfg.FS.PathJoin(dir, name)
		info, err := cfg.FS.Stat(path)
		switch {
		case err != nil:
		case info.IsDir():
			total += sizeOf(cfg, path)
		default:
			total += info.Size()
		}
	}
	return total
}
