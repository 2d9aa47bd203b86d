package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"strings"
)

// A segment is one file of a stream. Its stream's mu owns the fields that
// change; file is used under the stream's rules for writing and syncing.
type segment struct {
	number uint64
	path   string
	first  uint64  // number of the next event at its beginning
	last   uint64  // number of the last event at its end; first-1: none
	end    int64   // offset of the end of its last record
	size   int64   // of the file; from end to size it is zero
	events int64   // bytes of its events
	index  []point // ascending, one for every indexEvery bytes or so
	file   File    // nil once all is durable and another segment follows
	lost   bool    // an fsync failed: data that was not durable may be lost
}

// A point is an index entry: events at or after offset have numbers from seq on.
type point struct {
	seq    uint64
	offset int64
}

const indexEvery = 64 << 10

var zeros [256 << 10]byte

// reserve extends the file with at most that many zeros after end if it ends before
// end. An fsync is faster if it does not have to write a new file size.
func (g *segment) reserve(end, most int64) error {
	if end <= g.size {
		return nil
	}
	n, err := g.file.WriteAt(zeros[:min(most, int64(len(zeros)))], end)
	if err != nil {
		return err
	}
	g.size = end + int64(n)
	return nil
}

// blank reports whether there are only zeros after offset.
func (g *segment) blank(offset int64) (bool, error) {
	var window [32 << 10]byte
	for offset < g.size {
		n, err := g.file.ReadAt(window[:min(int64(len(window)), g.size-offset)], offset)
		if !bytes.Equal(window[:n], zeros[:n]) {
			return false, nil
		}
		if err != nil && err != io.EOF {
			return false, err
		}
		if n == 0 {
			break // the file is shorter than expected
		}
		offset += int64(n)
	}
	return true, nil
}

// addPoint adds an index entry if the last one is at least indexEvery bytes before.
func (g *segment) addPoint(seq uint64, offset int64) {
	if n := len(g.index); n == 0 || offset-g.index[n-1].offset >= indexEvery {
		g.index = append(g.index, point{seq, offset})
	}
}

// locate returns an offset at or before the first event numbered above after.
func (g *segment) locate(after uint64) int64 {
	offset := int64(headerSize)
	for _, p := range g.index {
		if p.seq > after+1 {
			break
		}
		offset = p.offset
	}
	return offset
}

// cut ends the segment at offset, where last is its last event.
func (g *segment) cut(offset int64, last uint64) {
	g.end, g.last, g.events = offset, last, min(g.events, offset)
	for n := len(g.index); n > 0 && g.index[n-1].offset >= offset; n-- {
		g.index = g.index[:n-1]
	}
}

// A header on disk, little endian: magic, format uint32, stream uint32, then
// the uint64s below in this order, and a crc32c over all before it. A later
// format keeps size, magic, format and checksum where they are.
type header struct {
	number  uint64 // of the segment, as in its name
	id      uint64 // of the journal when the segment began
	salt    uint64 // of the journal, chosen with its directory
	first   uint64
	order   uint64   // the highest order number so far
	prevEnd position // where the stream before this segment ends; later records there are invalid
	durable position // everything before it was durable when the segment began
}

const (
	headerSize  = 80
	headerMagic = "tidingsJ"
	format      = 1
)

var errHeader = errors.New("not a valid segment header")

func (h header) encode(s Stream) []byte {
	buf := append(make([]byte, 0, headerSize), headerMagic...)
	buf = binary.LittleEndian.AppendUint32(buf, format)
	buf = binary.LittleEndian.AppendUint32(buf, uint32(s))
	for _, v := range []uint64{h.number, h.id, h.salt, h.first, h.order, uint64(h.prevEnd), uint64(h.durable)} {
		buf = binary.LittleEndian.AppendUint64(buf, v)
	}
	buf = append(buf, make([]byte, headerSize-4-len(buf))...)
	return binary.LittleEndian.AppendUint32(buf, crc32.Checksum(buf, castagnoli))
}

// readHeader returns errHeader for a damaged or half-written header.
func readHeader(f io.ReaderAt, s Stream, path string) (header, error) {
	var buf [headerSize]byte
	if _, err := f.ReadAt(buf[:], 0); err == io.EOF {
		return header{}, errHeader
	} else if err != nil {
		return header{}, err
	}
	sum := binary.LittleEndian.Uint32(buf[headerSize-4:])
	if string(buf[:8]) != headerMagic || crc32.Checksum(buf[:headerSize-4], castagnoli) != sum {
		return header{}, errHeader
	}
	if err := checkFormat(path, int(binary.LittleEndian.Uint32(buf[8:]))); err != nil {
		return header{}, err
	}
	if v := binary.LittleEndian.Uint32(buf[12:]); v != uint32(s) {
		return header{}, &CorruptError{File: path, Stream: s.String(), Reason: "it is a segment of the other stream",
			Fix: "restore its name, or move it out of the folder"}
	}
	u := func(i int) uint64 { return binary.LittleEndian.Uint64(buf[16+8*i:]) }
	return header{u(0), u(1), u(2), u(3), u(4), position(u(5)), position(u(6))}, nil
}

func segmentName(s Stream, number uint64) string {
	return fmt.Sprintf("%s-%010d.seg", s, number)
}

// parseName parses a name of segmentName.
func parseName(s Stream, name string) (number uint64, ok bool) {
	digits, ok := strings.CutPrefix(name, s.String()+"-")
	if !ok {
		return 0, false
	}
	digits, ok = strings.CutSuffix(digits, ".seg")
	number, err := strconv.ParseUint(digits, 10, 32)
	return number, ok && err == nil && len(digits) == 10
}
