package journal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

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
	if st == nil {
		if i := slices.IndexFunc(names, func(n string) bool { return strings.HasSuffix(n, ".seg") }); i >= 0 {
			return &CorruptError{File: filepath.Join(j.cfg.Dir, stateName), Reason: "it is missing beside " + names[i],
				Fix: "put it back from a backup, or move the whole folder away to begin an empty journal"}
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
	for _, s := range j.streams {
		s.retain() // first, since what comes next may need space
	}
	for _, s := range j.streams {
		if err := j.catchUp(s); err != nil {
			return err
		}
	}
	return nil
}

// catchUp takes a new id if s ends before an event that was durable once.
func (j *Journal) catchUp(s *stream) error {
	st := j.state.Load()
	s.jump(st.Jumped[s.kind.String()])
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

// reportMissing logs what a reader will not find, since an operator moved a
// segment away or it is a new reader.
func (s *stream) reportMissing(cursor string, seq uint64) {
	for _, g := range s.segments {
		if g.first > seq+1 {
			s.j.log.Warn("events are no longer in the journal, a reader jumps them",
				"stream", s.kind, "cursor", cursor, "first", seq+1, "last", g.first-1)
		}
		seq = max(seq, g.last)
	}
}

// load finds the segments among names, reads them all, and ends with the
// stream as the last process left it, made durable.
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
	// What the last process wrote and did not fsync is here, and may be only
	// in memory. Nothing is handed out before it is durable.
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

// open opens the segments that count, newest first, since each header says
// where the stream before it ends.
func (s *stream) open(names []string) ([]header, error) {
	var headers []header
	prevEnd := lastPos
	for _, name := range slices.Backward(names) {
		path := filepath.Join(s.j.cfg.Dir, name)
		if strings.HasPrefix(name, s.kind.String()+"-") && strings.HasSuffix(name, ".seg.tmp") {
			s.j.fs.Remove(path) // begun and never used
			continue
		}
		num, ok := parseName(s.kind, name)
		if !ok {
			continue
		}
		s.number = max(s.number, num)
		if num > prevEnd.segment() {
			s.j.fs.Remove(path) // given up for the one behind it
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
		return h, &CorruptError{File: g.path, Stream: s.kind.String(), Reason: "it was copied here from another place",
			Fix: "move it out of the folder"}
	}
	return h, err
}

// cutHeader ends the stream before g, whose header a crash left unfinished.
// The newer segments, found so far, go too: s.segments, newest first.
func (s *stream) cutHeader(g *segment, headers []header) error {
	defer g.file.Close()
	place := at(g.number, 0)
	corrupt := false
	look := func(r record) bool {
		corrupt = corrupt || r.durable > place
		return corrupt
	}
	own := func(r record) bool {
		// A push's segment has a durable header before its first record.
		corrupt = corrupt || s.kind == Pushes
		return look(r)
	}
	err := search(g.file, s.j.salt, g.number, headerSize, g.end, own)
	for i := 0; i < len(headers) && err == nil && !corrupt; i++ {
		corrupt = headers[i].durable > place
		newer := s.segments[i]
		err = search(newer.file, s.j.salt, newer.number, headerSize, newer.end, look)
	}
	if err != nil {
		return err
	}
	if corrupt {
		return &CorruptError{File: g.path, Stream: s.kind.String(), Reason: "its header is not valid and records follow"}
	}
	s.j.log.Warn("cutting the journal before a segment whose header a crash left unfinished",
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

// scan reads the records of segment i and ends the stream at the first that
// is not valid, if nothing says that it was durable.
func (s *stream) scan(i int, headers []header) error {
	g := s.segments[i]
	var sc scanner
	sc.reset(g.file, s.j.salt, g.number, headerSize, g.end)
	s.last, s.mark = max(s.last, headers[i].first-1), max(s.mark, headers[i].mark)
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
	s.mark = max(s.mark, r.mark)
	s.j.intents.Store(max(s.j.intents.Load(), r.intent))
	s.noteIntent(r, r.payload, at(g.number, offset))
	s.settled = nil // durable before load returns
	switch r.kind {
	case kindIntent:
		s.intents[r.intent].released = true
	case kindEvent:
		if r.seq <= s.last {
			return &CorruptError{File: g.path, Offset: offset, Stream: s.kind.String(), First: r.seq,
				Reason: fmt.Sprintf("event %d follows event %d", r.seq, s.last)}
		}
		g.note(r.seq, offset)
		g.last, s.last = r.seq, r.seq
		g.events += recordHead + int64(len(r.payload))
	}
	return nil
}

// endAt ends the stream at offset of segment i, where no valid record begins.
// A segment that no header tells the end of ends before what it has reserved.
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

// cutTail ends the stream at offset of segment i. Later records or headers
// that were written when this place was durable make it damage instead.
func (s *stream) cutTail(i int, headers []header, offset int64) error {
	g := s.segments[i]
	place := at(g.number, offset)
	corrupt := false
	var next uint64
	look := func(r record) bool {
		corrupt = corrupt || r.durable > place
		if next == 0 && r.kind == kindEvent {
			next = r.seq
		}
		return corrupt && next != 0
	}
	if err := search(g.file, s.j.salt, g.number, offset+1, g.end, look); err != nil {
		return err
	}
	for k, later := range s.segments[i+1:] {
		if corrupt && next != 0 {
			break
		}
		h := headers[i+1+k]
		corrupt = corrupt || h.durable > place
		if next == 0 {
			next = h.first
		}
		if err := search(later.file, s.j.salt, later.number, headerSize, later.end, look); err != nil {
			return err
		}
	}
	if corrupt {
		return &CorruptError{File: g.path, Offset: offset, Stream: s.kind.String(), First: s.last + 1, Last: max(next, 1) - 1,
			Reason: "a record that was durable is not valid"}
	}

	s.j.log.Warn("cutting what a crash left unfinished at the end of the journal", "stream", s.kind,
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
