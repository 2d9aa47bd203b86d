package store

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const logPrefix = "log-"

// ErrLog: the log of what was last written is damaged. What was written before
// the damage can be read. For Pebble's IsCorruptionError it is one.
var ErrLog error = logError{}

type logError struct{}

func (logError) Error() string { return "the disk has changed its log" }

func (logError) Is(target error) bool { return target == pebble.ErrCorruption }

// logReader reads a log that nobody writes.
type logReader struct {
	fs   vfs.FS
	dir  string
	salt uint64
	next uint64                   // number of the next batch to give
	each func(batch []byte) error // is given each, and may keep it

	synced uint64 // number of the last batch that was surely durable
	buf    []byte
}

// read gives each batch from the number next on and returns the names of the
// files. It ends at a record that was cut short by a crash, and with ErrLog at
// one that was once whole and durable. What was written last is an exception:
// nothing after it tells of it, so if a disk loses it that looks like a crash.
func (r *logReader) read() (files []string, err error) {
	if files, err = r.list(); err != nil {
		return nil, err
	}
	for _, name := range files {
		if err := r.file(name); err != nil {
			return nil, err
		}
	}
	want := len(files)
	if r.next > 1 {
		want = max(want, 1)
	}
	for i := range want {
		if name := logName(i); !slices.Contains(files, name) {
			return nil, fmt.Errorf("%s is missing in %s: %w", name, r.dir, ErrLog)
		}
	}
	if r.synced >= r.next {
		return nil, fmt.Errorf("batch %d is missing in %s, and the log goes on after it: %w", r.next, r.dir, ErrLog)
	}
	return files, nil
}

// list is the files in the order of their first batches, those without any
// last.
func (r *logReader) list() (files []string, err error) {
	names, err := r.fs.List(r.dir)
	if err != nil {
		return nil, err
	}
	first := map[string]uint64{}
	for _, name := range names {
		if !strings.HasPrefix(name, logPrefix) {
			continue
		}
		content, err := r.load(name)
		if err != nil {
			return nil, err
		}
		first[name] = math.MaxUint64
		if rec, n := parseRecord(content, r.salt); n > 0 {
			first[name] = rec.number
		}
		files = append(files, name)
	}
	slices.SortFunc(files, func(a, b string) int { return cmp.Compare(first[a], first[b]) })
	return files, nil
}

// load is a file's content, until the next call.
func (r *logReader) load(name string) ([]byte, error) {
	f, err := r.fs.Open(r.fs.PathJoin(r.dir, name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	r.buf = slices.Grow(r.buf[:0], int(info.Size()))[:info.Size()]
	if _, err := f.ReadAt(r.buf, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return r.buf, nil
}

// file gives the batches of a file. What it held before it was written again
// has lower numbers.
func (r *logReader) file(name string) error {
	content, err := r.load(name)
	if err != nil {
		return err
	}
	for {
		rec, n := parseRecord(content, r.salt)
		if n == 0 {
			break
		}
		r.synced = max(r.synced, rec.synced)
		if rec.number == r.next {
			if err := r.each(slices.Clone(rec.batch)); err != nil {
				return err
			}
			r.next++
		}
		content = content[n:]
	}
	r.lookAhead(content)
	return nil
}

// lookAhead finds records behind one that can't be read.
func (r *logReader) lookAhead(content []byte) {
	for len(content) >= recordHead {
		rec, n := parseRecord(content, r.salt)
		r.synced = max(r.synced, rec.synced)
		content = content[max(n, 8):]
	}
}
