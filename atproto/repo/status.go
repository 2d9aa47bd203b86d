package repo

import (
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/atproto/mst"
	"github.com/tidings-dev/tidings/atproto/repo/layout"
	"github.com/tidings-dev/tidings/internal/store"
)

// Status is a summary of a stopped repo.
type Status struct {
	Head        Head
	MovedTo     string        // where the account has moved to; empty: it is here
	Ahead       time.Duration // how far the head's rev is ahead of the clock; usually negative
	Collections []Collection  // sorted

	Blobs     int64 // stored
	BlobBytes int64
	Missing   int64 // blobs that a record refers to and that were not uploaded

	Events       int64
	EventBytes   int64  // of frames
	OldestEvent  uint64 // sequence number; 0: there are no events
	DroppedEvent uint64 // the last that is no longer kept; 0: all are

	DiskBytes int64  // of the database and the blobs
	FreeBytes uint64 // of the disk; 0: unknown
	Space     error  // why writes would be refused for lack of disk space
}

// Collection is a collection and the number of its records.
type Collection struct {
	NSID    string
	Records int64
}

// ReadStatus reads the keys of a stopped repo, not the values, and changes
// nothing; damage is found by repair.Verify. No other process may have the
// repo open.
func ReadStatus(cfg Config) (Status, error) {
	cfg, err := cfg.WithDefaults()
	if err != nil {
		return Status{}, fmt.Errorf("read status: %w", err)
	}
	s, err := layout.OpenReadOnly(cfg.Dir, cfg.Layout())
	if err != nil {
		return Status{}, fmt.Errorf("read status of the repo in %s: %w", cfg.Dir, err)
	}
	defer s.Close()
	st, err := readStatus(cfg, s)
	if err != nil {
		return st, fmt.Errorf("read status of the repo in %s: %w", cfg.Dir, err)
	}
	st.Space = s.Space()
	return st, nil
}

func readStatus(cfg Config, db store.Reader) (st Status, err error) {
	head, err := loadHead(cfg, db)
	if err != nil {
		return st, err
	}
	st.Head, st.Ahead = head.Head, head.Ahead(cfg.Now())
	if st.MovedTo, err = layout.Moved(db); err != nil {
		return st, err
	}
	if st.Collections, err = collections(db); err != nil {
		return st, err
	}
	first, err := oldestEvent(db, head)
	if err != nil {
		return st, err
	}
	st.OldestEvent = first.seq
	if first.seq > 0 {
		st.EventBytes = int64(head.Logged - first.logged)
	}
	if st.Events, err = layout.Count(db, layout.PrefixEvent); err != nil {
		return st, err
	}
	if st.DroppedEvent, err = layout.LastDropped(db); err != nil {
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

func collections(db store.Reader) (all []Collection, err error) {
	it, err := layout.Iterate(db, layout.PrefixRecord)
	if err != nil {
		return nil, err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		name, _ := mst.SplitPath(string(it.Key()[len(layout.PrefixRecord):]))
		if n := len(all); n == 0 || all[n-1].NSID != name {
			all = append(all, Collection{NSID: name})
		}
		all[len(all)-1].Records++
	}
	return all, it.Error()
}

func (st *Status) countBlobs(db store.Reader) error {
	it, err := layout.Iterate(db, layout.PrefixBlob)
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		val, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		row, err := layout.DecodeBlobRow(val)
		switch {
		case err != nil:
			return err
		case row.Stored:
			st.Blobs++
			st.BlobBytes += row.Size
		default:
			st.Missing++
		}
	}
	return it.Error()
}

// sizeOf returns the total size of the readable files in a folder.
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
