package journal

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// lead writes the next batch for all who are in it. Whoever finds nobody
// writing does it himself: to wake a goroutine for it costs a quiet machine
// more than the write. He waits as long as the operating system does, which
// takes a write into memory; the others wait no longer than Config.Wait.
func (s *stream) lead() {
	if s.writeNext() {
		go s.follow()
	}
}

// follow writes what was queued meanwhile, so that the leader need not.
func (s *stream) follow() {
	for s.writeNext() {
	}
}

// writeNext writes the next batch, and reports whether another waits. If none
// does, nobody is writing any more.
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
		s.unclaim(b)
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
				s.j.log.Error("cannot begin a journal segment", "stream", s.kind, "err", err)
				continue
			}
		}
		if err = s.putIn(g, b); err == nil {
			return nil
		}
		s.j.log.Error("cannot write to a journal segment", "stream", s.kind, "file", g.path, "err", err)
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

func (s *stream) putIn(g *segment, b *batch) error {
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
		// The next header says where this segment ends. Should there be none
		// before a crash, half a record here is a torn tail.
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
		g.note(b.first, start)
	}
	offset = start
	walk(b.buf, func(raw []byte, r record) {
		s.noteIntent(r, raw[recordHead:], at(g.number, offset))
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

// begin makes a new last segment. Pushes are made durable first, pulls are
// not, as no pull waits for an fsync. But when a segment failed, what is not
// durable is made so, or else moves to the new one. tail is held.
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
			s.j.log.Error("cannot fsync the journal, moving what is not durable to a new segment", "stream", s.kind, "err", err)
			carry = true
		}
	}

	s.mu.Lock()
	s.active = nil
	s.number++
	h := header{
		number: s.number, id: s.j.id.Load(), salt: s.j.salt, mark: s.mark,
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
		s.abandonTail(g, moved)
	}
	s.segments = append(s.segments, g)
	s.active = g
	s.written = at(g.number, g.end)
	if s.kind == Pushes || carry {
		s.durable, s.durableLast = s.written, s.last
		s.forgetSettled()
		s.newNames = 0
	} else {
		s.newNames++
	}
	s.mu.Unlock()

	for _, old := range from {
		if old.number > h.prevEnd.segment() {
			old.file.Close()
			s.j.fs.Remove(old.path) // of no use; the new header says so even if it stays
		}
	}
	if s.kind == Pulls && !carry {
		s.mu.Lock()
		s.ensureRound() // so that what is not durable stays small without readers too
		s.mu.Unlock()
	}
	s.retainSoon()
	return g, nil
}

// create makes the file of the segment h describes, with the records of from
// behind h.prevEnd in it. It has its name only once it is whole, so that
// until then the old segments are what a restart finds.
func (s *stream) create(h header, from []*segment, durable bool) (_ *segment, moved map[uint64]pos, err error) {
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
			fs.Remove(g.path) // the rename may have been done in spite of its error
		}
	}()
	if _, err = g.file.WriteAt(h.encode(s.kind), 0); err != nil {
		return nil, nil, err
	}
	if moved, err = s.carry(g, h, from); err != nil {
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

// carry copies the records of from behind h.prevEnd to g and returns where
// each intent went. An operating system may drop pages that it failed to
// write, so each record is checked; what is gone is left out.
func (s *stream) carry(g *segment, h header, from []*segment) (map[uint64]pos, error) {
	moved := map[uint64]pos{}
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
					s.j.log.Error("the disk lost journal records that were never durable", "stream", s.kind,
						"file", old.path, "offset", sc.offset, "after_event", g.last, "through_event", old.last, "err", err)
					s.forfeit(at(old.number, sc.offset), at(old.number, old.end))
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
				g.note(r.seq, g.end)
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

func (s *stream) forfeit(from, to pos) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forfeited = append(s.forfeited, span{from, to})
}

// abandonTail forgets what was not durable in the old segments, now that g
// has it. mu is held.
func (s *stream) abandonTail(g *segment, moved map[uint64]pos) {
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
