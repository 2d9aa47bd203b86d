package journal

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// lead writes the next batch. An append that finds no write in progress writes the
// batch itself, since waking another goroutine is slower than the write if there is no
// other load. It waits until the system call returns; other appends at most Config.Wait.
func (s *stream) lead() {
	if s.writeNext() {
		go s.writeQueued()
	}
}

// writeQueued writes the batches that were queued meanwhile.
func (s *stream) writeQueued() {
	for s.writeNext() {
	}
}

// writeNext writes the next batch and reports whether another is queued. If not,
// it ends the write in progress.
func (s *stream) writeNext() (more bool) {
	s.mu.Lock()
	b := s.next
	s.next = nil
	if b.taken != nil {
		close(b.taken)
	}
	s.mu.Unlock()

	s.tail.Lock()
	b.err = s.put(b)
	s.tail.Unlock()
	if b.err != nil {
		s.undoAdmit(b)
	}
	close(b.done)

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next != nil {
		return true
	}
	s.writing = false
	s.idle.Broadcast()
	return false
}

// put writes b to the last segment. If that fails it tries once more in a
// new one, since a segment that failed is never written again. tail is held.
func (s *stream) put(b *batch) (err error) {
	for range 2 {
		g := s.writable()
		if g == nil {
			if g, err = s.begin(); err != nil {
				s.j.log.Error("cannot begin a journal segment", "stream", s.kind, "error", err)
				continue
			}
		}
		if err = s.writeBatch(g, b); err == nil {
			return nil
		}
		s.j.log.Error("cannot write to a journal segment", "stream", s.kind, "file", g.path, "error", err)
	}
	return diskError(err)
}

func (s *stream) writable() *segment {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active != nil && s.active.end >= s.j.cfg.SegmentSize {
		return nil
	}
	return s.active
}

func (s *stream) writeBatch(g *segment, b *batch) error {
	s.mu.Lock()
	start, seq, durable := g.end, s.last, s.durable
	s.mu.Unlock()
	b.first = seq + 1
	offset, events := start, int64(0)
	walk(b.buf, func(raw []byte, r record) {
		var number uint64
		if r.kind == kindEvent {
			seq++
			number = seq
			events += int64(len(raw))
		}
		stamp(raw, s.j.salt, at(g.number, offset), number, durable)
		offset += int64(len(raw))
	})
	if err := s.write(g, b.buf, start); err != nil {
		// The next segment's header has the end of this one. If a crash prevents that
		// segment, half a record here is a torn tail.
		g.file.Truncate(start)
		s.mu.Lock()
		s.active = nil
		s.mu.Unlock()
		return err
	}
	b.end = at(g.number, offset)

	s.mu.Lock()
	defer s.mu.Unlock()
	if b.events > 0 {
		g.addPoint(b.first, start)
	}
	offset = start
	walk(b.buf, func(raw []byte, r record) {
		s.applyIntent(r, raw[recordHead:], at(g.number, offset))
		offset += int64(len(raw))
	})
	g.end, g.last, g.events = offset, seq, g.events+events
	s.last, s.written = seq, b.end
	if b.events > 0 {
		s.wake()
	}
	return nil
}

func (s *stream) write(g *segment, buf []byte, start int64) error {
	if s.kind == Pushes {
		if err := g.reserve(start+int64(len(buf)), s.j.cfg.SegmentSize/16); err != nil {
			return err
		}
	}
	_, err := g.file.WriteAt(buf, start)
	return err
}

// begin starts a new segment:
//
//  1. Pushes are synced first; pulls are not, as no pull waits for an fsync. After
//     a failed write, pulls are synced too. If the sync fails, the records
//     after s.durable are copied to the new segment (carry).
//  2. create writes the header and the copied records to a temporary file, syncs
//     it for pushes and for copied records, renames it and syncs the directory.
//  3. From the rename on, prevEnd in the header is the end of the stream before this
//     segment: records after it in older segments are invalid.
//  4. Old segments from which everything was copied are removed.
//
// Crash before the rename: the temporary file is removed by load, and the old
// segments are read up to the first invalid record. Crash after it: load uses
// prevEnd; whether step 4 was done makes no difference. If create fails, the file
// is removed under both names, the number is not used again, and the records
// stay where they were; the append fails or is retried in another segment.
// tail is held.
func (s *stream) begin() (*segment, error) {
	s.mu.Lock()
	healthy := s.active != nil
	target, last := s.written, s.last
	s.mu.Unlock()
	carry := false
	if s.kind == Pushes || !healthy {
		s.flush.Lock()
		defer s.flush.Unlock()
		if err := s.sync(target, last); err != nil {
			s.j.log.Error("cannot fsync the journal; moving the records that are not durable to a new segment", "stream", s.kind, "error", err)
			carry = true
		}
	}

	s.mu.Lock()
	s.active = nil
	s.number++
	h := header{
		number: s.number, id: s.j.id.Load(), salt: s.j.salt, order: s.order,
		first: s.last + 1, prevEnd: s.written, durable: s.durable,
	}
	var from []*segment
	if carry {
		h.first, h.prevEnd = s.durableLast+1, s.durable
		for _, g := range s.segments {
			if at(g.number, g.end) > s.durable {
				from = append(from, g)
			}
		}
	}
	s.mu.Unlock()

	g, moved, err := s.create(h, from, s.kind == Pushes || carry)
	if err != nil {
		return nil, fmt.Errorf("begin segment %d: %w", h.number, err)
	}
	s.mu.Lock()
	if carry {
		s.discardTail(g, moved)
	}
	s.segments = append(s.segments, g)
	s.active = g
	s.written = at(g.number, g.end)
	if s.kind == Pushes || carry {
		s.durable, s.durableLast = s.written, s.last
		s.forgetEnded()
		s.newNames = 0
	} else {
		s.newNames++
	}
	s.mu.Unlock()

	for _, old := range from {
		if old.number > h.prevEnd.segment() {
			old.file.Close()
			s.j.fs.Remove(old.path) // load ignores it if this fails
		}
	}
	if s.kind == Pulls && !carry {
		s.mu.Lock()
		s.startSync() // limits the unsynced data of a stream without readers
		s.mu.Unlock()
	}
	s.retainSoon()
	return g, nil
}

// create writes the file of the segment that h describes, with the records of from
// after h.prevEnd. It is renamed to its final name when it is complete.
func (s *stream) create(h header, from []*segment, durable bool) (_ *segment, moved map[uint64]position, err error) {
	fs := s.j.fs
	g := &segment{number: h.number, first: h.first, last: h.first - 1, end: headerSize}
	g.path = filepath.Join(s.j.cfg.Dir, segmentName(s.kind, h.number))
	temp := g.path + ".tmp"
	g.file, err = fs.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			g.file.Close()
			fs.Remove(temp)
			fs.Remove(g.path) // a failed rename may have taken effect
		}
	}()
	if _, err = g.file.WriteAt(h.encode(s.kind), 0); err != nil {
		return nil, nil, err
	}
	if moved, err = s.copyRecords(g, h, from); err != nil {
		return nil, nil, err
	}
	if durable {
		if err = g.file.Sync(); err != nil {
			return nil, nil, err
		}
	}
	if err = fs.Rename(temp, g.path); err != nil {
		return nil, nil, err
	}
	if durable {
		if err = fs.SyncDir(s.j.cfg.Dir); err != nil {
			return nil, nil, err
		}
	}
	return g, moved, nil
}

// copyRecords copies the records of from after h.prevEnd to g and returns the new
// position of each intent. The operating system may have dropped pages that it
// failed to write, so each record is checked; lost records are left out.
func (s *stream) copyRecords(g *segment, h header, from []*segment) (map[uint64]position, error) {
	moved := map[uint64]position{}
	var buf []byte
	for _, old := range from {
		offset := int64(headerSize)
		if old.number == h.prevEnd.segment() {
			offset = h.prevEnd.offset()
		}
		var sc scanner
		sc.reset(old.file, s.j.salt, old.number, offset, old.end)
		for {
			r, err := sc.next(nil)
			if err != nil {
				if err != io.EOF {
					s.j.log.Error("the disk lost journal records that were not yet durable", "stream", s.kind,
						"file", old.path, "offset", sc.offset, "after_event", g.last, "through_event", old.last, "error", err)
					s.addLost(at(old.number, sc.offset), at(old.number, old.end))
				}
				break
			}
			raw := r.encode(buf[:0])
			buf = raw
			stamp(raw, s.j.salt, at(g.number, g.end), r.seq, h.durable)
			if _, err := g.file.WriteAt(raw, g.end); err != nil {
				return nil, err
			}
			if r.kind == kindEvent {
				g.addPoint(r.seq, g.end)
				g.last = r.seq
				g.events += int64(len(raw))
			}
			if r.kind == kindIntent {
				moved[r.intent] = at(g.number, g.end)
			}
			g.end += int64(len(raw))
		}
	}
	return moved, nil
}

func (s *stream) addLost(from, to position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lostRanges = append(s.lostRanges, positionRange{from, to})
}

// discardTail removes the records that were copied to g from the old segments.
// mu is held.
func (s *stream) discardTail(g *segment, moved map[uint64]position) {
	keep := s.segments[:0:0]
	for _, old := range s.segments {
		if old.number > s.durable.segment() {
			continue
		}
		if old.number == s.durable.segment() {
			old.cut(s.durable.offset(), s.durableLast)
		}
		keep = append(keep, old)
	}
	s.segments = keep
	s.restoreIntents(moved)
}
