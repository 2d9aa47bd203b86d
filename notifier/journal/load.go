package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Recovery. load reads journal.json and then all segments of both streams:
//
//   - Each segment header has the position at which the stream before it ends
//     (prevEnd). Segments are therefore opened newest first, and records after
//     prevEnd, left over from a failed fsync, are ignored.
//   - Temporary files and segments that a newer header excludes are removed. A
//     invalid header ends the stream before its segment.
//   - Records are replayed oldest first: they restore the last sequence number, the
//     last order number and the open intents. At the first invalid record the
//     stream ends. Zeros up to the end of the file are preallocated space.
//     Anything else is a torn tail, which is truncated, unless a later record
//     or header says that this position was durable (its field "durable"):
//     then the file is damaged and Open returns a CorruptError.
//   - The remaining records are synced before they are read, since the last process
//     may have written them without an fsync.
//   - If the stream ends before a cursor or the last event known to be durable,
//     sequence numbers would be used again: the journal takes a new id and continues
//     above them (see AdvanceTo).
//
// A crash during recovery is harmless: removing and truncating goes from the newest
// segment to the oldest, and recovery starts again.

func (j *Journal) load() error {
	if err := j.fs.MkdirAll(j.cfg.Dir); err != nil {
		return err
	}
	names, err := j.fs.ReadDir(j.cfg.Dir)
	if err != nil {
		return err
	}
	slices.Sort(names)
	st, err := j.loadState()
	if err != nil {
		return err
	}
	if st == nil && j.cfg.readOnly {
		return fmt.Errorf("there is no %s: %w", stateName, fs.ErrNotExist)
	}
	if st == nil {
		if i := slices.IndexFunc(names, func(n string) bool { return strings.HasSuffix(n, ".seg") }); i >= 0 {
			return &CorruptError{File: filepath.Join(j.cfg.Dir, stateName), Reason: "it is missing, but there is " + names[i],
				Fix: "restore it from a backup, or move the whole folder away to start with an empty journal"}
		}
		st = newState()
		if err := j.saveState(st); err != nil {
			return err
		}
	}
	j.state.Store(st)
	j.salt = number(st.Salt)
	j.id.Store(number(st.ID))
	for _, s := range j.streams {
		if err := s.load(names); err != nil {
			return err
		}
	}
	if j.cfg.readOnly {
		return nil
	}
	for _, s := range j.streams {
		s.retain() // first, since the next step may need space
	}
	for _, s := range j.streams {
		if err := j.renewIfBehind(s); err != nil {
			return err
		}
	}
	return nil
}

// renewIfBehind takes a new id if s ends before an event that was durable.
func (j *Journal) renewIfBehind(s *stream) error {
	st := j.state.Load()
	s.skipTo(st.Jumped[s.kind.String()])
	reached := st.Last[s.kind.String()]
	for name, seq := range st.Cursors[s.kind.String()] {
		reached = max(reached, seq)
		s.reportMissing(name, seq)
	}
	if reached <= s.last {
		return nil
	}
	return j.renew(s.kind, reached)
}

// reportMissing logs the events that a reader will not find, because an operator moved
// a segment away or the cursor is new.
func (s *stream) reportMissing(cursor string, seq uint64) {
	for _, g := range s.segments {
		if g.first > seq+1 {
			s.j.log.Warn("events are no longer in the journal; a reader skips them",
				"stream", s.kind, "cursor", cursor, "first", seq+1, "last", g.first-1)
		}
		seq = max(seq, g.last)
	}
}

// load reads the segments among names and restores the stream as the last process left
// it, synced.
func (s *stream) load(names []string) error {
	headers, err := s.open(names)
	if err != nil {
		return err
	}
	for i := 0; i < len(s.segments); i++ {
		if err := s.scan(i, headers); err != nil {
			return err
		}
	}
	n := len(s.segments)
	if n == 0 {
		return nil
	}
	// Records that the last process did not fsync may only be in the page cache.
	for _, g := range s.segments {
		if err := g.file.Sync(); err != nil {
			return fmt.Errorf("fsync %s: %w", g.path, err)
		}
	}
	if err := s.j.fs.SyncDir(s.j.cfg.Dir); err != nil {
		return err
	}
	s.active = s.segments[n-1]
	for _, g := range s.segments[:n-1] {
		g.file.Close()
		g.file = nil
	}
	s.written = at(s.active.number, s.active.end)
	s.durable, s.durableLast = s.written, s.last
	for id := range s.intents {
		s.j.intents.Store(max(s.j.intents.Load(), id))
	}
	return nil
}

// open opens the segments that belong to the stream, newest first.
func (s *stream) open(names []string) ([]header, error) {
	var headers []header
	prevEnd := lastPos
	for _, name := range slices.Backward(names) {
		path := filepath.Join(s.j.cfg.Dir, name)
		if strings.HasPrefix(name, s.kind.String()+"-") && strings.HasSuffix(name, ".seg.tmp") {
			s.j.fs.Remove(path) // never completed
			continue
		}
		num, ok := parseName(s.kind, name)
		if !ok {
			continue
		}
		s.number = max(s.number, num)
		if num > prevEnd.segment() {
			s.j.fs.Remove(path) // replaced by the next one
			continue
		}
		g := &segment{number: num, path: path}
		h, err := s.openFile(g)
		if err == errHeader {
			if err := s.cutHeader(g, headers); err != nil {
				return nil, err
			}
			headers, prevEnd = nil, lastPos
			continue
		}
		if err != nil {
			return nil, err
		}
		if num == prevEnd.segment() {
			g.end = prevEnd.offset()
		}
		g.first, g.last = h.first, h.first-1
		prevEnd = h.prevEnd
		s.segments = append(s.segments, g)
		headers = append(headers, h)
	}
	slices.Reverse(s.segments)
	slices.Reverse(headers)
	return headers, nil
}

// openFile opens g's file and reads its header. After errHeader the file is
// open; after another error it is not.
func (s *stream) openFile(g *segment) (h header, err error) {
	g.file, err = s.j.fs.OpenFile(g.path, os.O_RDWR)
	if err != nil {
		return header{}, err
	}
	defer func() {
		if err != nil && err != errHeader {
			g.file.Close()
		}
	}()
	if g.size, err = g.file.Size(); err != nil {
		return header{}, err
	}
	g.end = g.size
	h, err = readHeader(g.file, s.kind, g.path)
	if err == nil && (h.number != g.number || h.salt != s.j.salt) {
		return h, &CorruptError{File: g.path, Stream: s.kind.String(), Reason: "it belongs to another journal",
			Fix: "move it out of the folder"}
	}
	return h, err
}

// cutHeader ends the stream before g, whose header a crash left incomplete, and
// removes the newer segments too: s.segments, newest first.
func (s *stream) cutHeader(g *segment, headers []header) error {
	defer g.file.Close()
	pos := at(g.number, 0)
	corrupt := false
	inNewer := func(r record) bool {
		corrupt = corrupt || r.durable > pos
		return corrupt
	}
	inSegment := func(r record) bool {
		// A segment of pushes has a durable header before its first record.
		corrupt = corrupt || s.kind == Pushes
		return inNewer(r)
	}
	err := search(g.file, s.j.salt, g.number, headerSize, g.end, inSegment)
	for i := 0; i < len(headers) && err == nil && !corrupt; i++ {
		corrupt = headers[i].durable > pos
		newer := s.segments[i]
		err = search(newer.file, s.j.salt, newer.number, headerSize, newer.end, inNewer)
	}
	if err != nil {
		return err
	}
	if corrupt {
		return &CorruptError{File: g.path, Stream: s.kind.String(), Reason: "its header is invalid and records follow"}
	}
	s.j.log.Warn("truncating the journal before a segment whose header a crash left incomplete",
		"stream", s.kind, "file", g.path, "bytes", g.end, "segments_after", len(s.segments))
	if err := s.removeNewest(s.segments); err != nil {
		return err
	}
	s.segments = nil
	return s.j.fs.Remove(g.path)
}

// removeNewest removes segments at the end of the stream, the newest first.
func (s *stream) removeNewest(newestFirst []*segment) error {
	for _, g := range newestFirst {
		g.file.Close()
		if err := s.j.fs.Remove(g.path); err != nil {
			return err
		}
	}
	return nil
}

// scan replays the records of segment i and ends the stream at the first invalid
// one, unless it was durable.
func (s *stream) scan(i int, headers []header) error {
	g := s.segments[i]
	var sc scanner
	sc.reset(g.file, s.j.salt, g.number, headerSize, g.end)
	s.last, s.order = max(s.last, headers[i].first-1), max(s.order, headers[i].order)
	var buf []byte
	for {
		r, err := sc.next(buf)
		if err == io.EOF {
			return nil
		}
		if errors.Is(err, errInvalid) {
			return s.endAt(i, headers, sc.offset)
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", g.path, err)
		}
		if err := s.replay(g, r, sc.offset-recordHead-int64(len(r.payload))); err != nil {
			return err
		}
		buf = r.payload[:0]
	}
}

func (s *stream) replay(g *segment, r record, offset int64) error {
	s.order = max(s.order, r.order)
	s.j.intents.Store(max(s.j.intents.Load(), r.intent))
	s.applyIntent(r, r.payload, at(g.number, offset))
	s.ended = nil // durable before load returns
	switch r.kind {
	case kindIntent:
		s.intents[r.intent].released = true
	case kindEvent:
		if r.seq <= s.last {
			return &CorruptError{File: g.path, Offset: offset, Stream: s.kind.String(), First: r.seq,
				Reason: fmt.Sprintf("event %d follows event %d", r.seq, s.last)}
		}
		g.addPoint(r.seq, offset)
		g.last, s.last = r.seq, r.seq
		g.events += recordHead + int64(len(r.payload))
	}
	return nil
}

// endAt ends the stream at offset of segment i, where no valid record begins.
// If no header has the end of the segment, preallocated zeros may follow.
func (s *stream) endAt(i int, headers []header, offset int64) error {
	g := s.segments[i]
	if i+1 == len(headers) || headers[i+1].prevEnd.segment() != g.number {
		blank, err := g.blank(offset)
		if err != nil {
			return fmt.Errorf("read %s: %w", g.path, err)
		}
		if blank {
			g.end = offset
			return nil
		}
	}
	return s.cutTail(i, headers, offset)
}

// cutTail truncates the stream at offset of segment i, or returns a CorruptError
// if a later record or header was written when this position was durable.
func (s *stream) cutTail(i int, headers []header, offset int64) error {
	g := s.segments[i]
	pos := at(g.number, offset)
	corrupt := false
	var next uint64
	visit := func(r record) bool {
		corrupt = corrupt || r.durable > pos
		if next == 0 && r.kind == kindEvent {
			next = r.seq
		}
		return corrupt && next != 0
	}
	if err := search(g.file, s.j.salt, g.number, offset+1, g.end, visit); err != nil {
		return err
	}
	for k, later := range s.segments[i+1:] {
		if corrupt && next != 0 {
			break
		}
		h := headers[i+1+k]
		corrupt = corrupt || h.durable > pos
		if next == 0 {
			next = h.first
		}
		if err := search(later.file, s.j.salt, later.number, headerSize, later.end, visit); err != nil {
			return err
		}
	}
	if corrupt {
		return &CorruptError{File: g.path, Offset: offset, Stream: s.kind.String(), First: s.last + 1, Last: max(next, 1) - 1,
			Reason: "a record that was durable is invalid"}
	}

	s.j.log.Warn("truncating an incomplete write at the end of the journal", "stream", s.kind,
		"file", g.path, "offset", offset, "bytes", g.end-offset, "segments_after", len(s.segments)-i-1)
	later := slices.Clone(s.segments[i+1:])
	slices.Reverse(later)
	if err := s.removeNewest(later); err != nil {
		return err
	}
	s.segments = s.segments[:i+1]
	if err := g.file.Truncate(offset); err != nil {
		return err
	}
	g.end, g.size = offset, offset
	return nil
}
