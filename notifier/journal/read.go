package journal

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
)

// A reader is an open file, positioned after the event numbered after. Sequential
// reads reuse the reader of the previous call.
type reader struct {
	segment *segment
	file    File
	sc      scanner
	offset  int64
	after   uint64
}

// maxReaders is the maximum number of idle readers of a stream. Each has an open file
// and a buffer of 64 KiB.
const maxReaders = 8

// read returns durable events numbered above after, oldest first.
func (s *stream) read(after uint64, maxEntries, maxBytes int) ([]Entry, error) {
	var entries []Entry
	for bytes := 0; len(entries) < maxEntries && bytes < maxBytes; {
		r, err := s.reader(after, false)
		if err != nil || r == nil {
			return entries, err
		}
		before := len(entries)
		for len(entries) < maxEntries && bytes < maxBytes {
			rec, err := s.nextEvent(r, after)
			if err == io.EOF {
				break
			}
			if err != nil {
				r.file.Close()
				return entries, err
			}
			after = rec.seq
			bytes += len(rec.payload)
			entries = append(entries, Entry{rec.seq, rec.order, rec.payload})
		}
		r.offset, r.after = r.sc.offset, after
		s.putReader(r)
		if len(entries) == before {
			break // the next record is not durable
		}
	}
	return entries, nil
}

// oldest returns the order number of the first event above after, durable or not.
func (s *stream) oldest(after uint64) (order uint64, ok bool) {
	r, err := s.reader(after, true)
	if err != nil || r == nil {
		return 0, false
	}
	rec, err := s.nextEvent(r, after)
	s.putReader(r) // with its position unchanged
	return rec.order, err == nil
}

// nextEvent returns the first event above after, or io.EOF if it is not in this
// segment.
func (s *stream) nextEvent(r *reader, after uint64) (record, error) {
	for {
		rec, err := r.sc.next(nil)
		if err == errInvalid {
			return rec, &CorruptError{
				File: r.segment.path, Offset: r.sc.offset, Stream: s.kind.String(), First: after + 1,
				Reason: "there is no valid record where one was durable",
			}
		}
		if err != nil || rec.kind == kindEvent && rec.seq > after {
			return rec, err
		}
	}
}

// reader returns a reader positioned before the first event above after, or nil if
// there is none. It reads durable records, or all written ones.
func (s *stream) reader(after uint64, all bool) (*reader, error) {
	for {
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			return nil, ErrClosed
		}
		limit := s.durable
		if all {
			limit = s.written
		}
		g := s.segmentAfter(after)
		if g == nil || g.number > limit.segment() {
			s.mu.Unlock()
			return nil, nil
		}
		end := g.end
		if g.number == limit.segment() {
			end = min(end, limit.offset())
		}
		r := s.takeReader(g, after)
		offset := g.locate(after)
		s.mu.Unlock()

		if r == nil {
			file, err := s.j.fs.OpenFile(g.path, os.O_RDONLY)
			if errors.Is(err, fs.ErrNotExist) && !s.has(g) {
				continue // deleted in the meantime
			}
			if err != nil {
				return nil, err
			}
			r = &reader{segment: g, file: file, offset: offset, after: after}
		}
		r.sc.reset(r.file, s.j.salt, g.number, r.offset, end)
		return r, nil
	}
}

// segmentAfter returns the segment with the first event above after. mu is held.
func (s *stream) segmentAfter(after uint64) *segment {
	for _, g := range s.segments {
		if g.last > after && g.last >= g.first {
			return g
		}
	}
	return nil
}

// takeReader removes the idle reader that is positioned after event after in g. A
// reader with that position in another segment is at its end and closed. mu is held.
func (s *stream) takeReader(g *segment, after uint64) *reader {
	for i, r := range s.readers {
		if r.after != after {
			continue
		}
		s.readers = slices.Delete(s.readers, i, i+1)
		if r.segment == g {
			return r
		}
		r.file.Close()
		return nil
	}
	return nil
}

func (s *stream) putReader(r *reader) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !slices.Contains(s.segments, r.segment) {
		r.file.Close()
		return
	}
	s.readers = append(s.readers, r)
	if len(s.readers) > maxReaders {
		s.readers[0].file.Close()
		s.readers = slices.Delete(s.readers, 0, 1)
	}
}

func (s *stream) has(g *segment) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.segments, g)
}
