package journal

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
)

// A reader is an open file, placed behind the event numbered after. Whoever
// reads in order finds the one that the last call left.
type reader struct {
	segment *segment
	file    File
	sc      scanner
	offset  int64
	after   uint64
}

// maxReaders is how many idle readers a stream keeps; each costs a file
// handle and 64 KiB.
const maxReaders = 8

// read returns events numbered above after that lie before limit.
func (s *stream) read(after uint64, limit func() pos, maxEntries, maxBytes int) (entries []Entry, err error) {
	var r *reader
	bytes := 0
	for len(entries) < maxEntries && bytes < maxBytes {
		if r == nil {
			if r, err = s.reader(after, limit); r == nil || err != nil {
				return entries, err
			}
		}
		rec, err := r.sc.next(nil)
		if err == io.EOF {
			s.release(r, after) // the next reader is in the next segment, if any
			if !s.more(r, after, limit) {
				return entries, nil
			}
			s.drop(r.segment)
			r = nil
			continue
		}
		if err != nil {
			r.file.Close()
			return entries, s.damage(r, after, err)
		}
		if rec.kind == kindEvent && rec.seq > after {
			after = rec.seq
			bytes += len(rec.payload)
			entries = append(entries, Entry{rec.seq, rec.mark, rec.payload})
		}
	}
	if r != nil {
		s.release(r, after)
	}
	return entries, nil
}

// reader returns one that meets the first event above after; nil: there is
// none before limit.
func (s *stream) reader(after uint64, limit func() pos) (*reader, error) {
	for {
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			return nil, ErrClosed
		}
		end := limit()
		g := s.holding(after, end)
		if g == nil {
			s.mu.Unlock()
			return nil, nil
		}
		stop := min(g.end, max(headerSize, int64(end-at(g.number, 0))))
		i := slices.IndexFunc(s.readers, func(r *reader) bool { return r.after == after && r.segment == g })
		if i >= 0 {
			r := s.readers[i]
			s.readers = slices.Delete(s.readers, i, i+1)
			s.mu.Unlock()
			r.sc.reset(r.file, s.j.salt, g.number, r.offset, stop)
			return r, nil
		}
		offset, path := g.locate(after), g.path
		s.mu.Unlock()

		file, err := s.j.fs.OpenFile(path, os.O_RDONLY)
		if errors.Is(err, fs.ErrNotExist) && s.gone(g) {
			continue // retention was faster
		}
		if err != nil {
			return nil, err
		}
		r := &reader{segment: g, file: file}
		r.sc.reset(file, s.j.salt, g.number, offset, stop)
		return r, nil
	}
}
