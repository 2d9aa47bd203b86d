package journal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
)

// A pos is a place in a stream: segment number in the upper half, offset in
// that segment's file in the lower. Later places compare greater.
type pos uint64

const lastPos = pos(math.MaxUint64)

func at(segment uint64, offset int64) pos { return pos(segment<<32 | uint64(offset)) }
func (p pos) segment() uint64             { return uint64(p >> 32) }
func (p pos) offset() int64               { return int64(p & math.MaxUint32) }

// A record on disk, little endian:
//
//	 0  magic, two bytes that UTF-8 text cannot contain
//	 2  kind
//	 3  zero
//	 4  payload length   uint32
//	 8  crc32c           uint32, over the salt, the record's place, and all of the record but this field
//	12  seq              uint64, of an event; else 0
//	20  intent           uint64, that is opened, abandoned or completed; else 0
//	28  mark             uint64
//	36  durable          uint64, the pos before which everything was durable when this was written
//	44  payload
//
// Salt and place keep bytes inside a payload, and those a reused disk block
// held before, from ever passing for a record.
const recordHead = 44

const (
	magic0, magic1 = 0xF5, 0xC1

	kindEvent   = 1
	kindIntent  = 2
	kindAbandon = 3
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type record struct {
	kind              byte
	seq, intent, mark uint64
	durable           pos
	payload           []byte
	again             bool // not on disk: repeats what the journal knows of the intent
}

func (r *record) check() error {
	most := MaxPayload
	if r.kind == kindIntent && !r.again { // earlier versions took larger ones
		most = MaxIntent
	}
	if len(r.payload) > most {
		return fmt.Errorf("%w: it has %d bytes, of at most %d", ErrTooLarge, len(r.payload), most)
	}
	return nil
}

// encode appends r without number, place and checksum, which stamp fills in
// once they are known.
func (r record) encode(buf []byte) []byte {
	buf = slices.Grow(buf, recordHead+len(r.payload))
	buf = append(buf, magic0, magic1, r.kind, 0)
	buf = binary.LittleEndian.AppendUint32(buf, uint32(len(r.payload)))
	buf = append(buf, make([]byte, 12)...)
	buf = binary.LittleEndian.AppendUint64(buf, r.intent)
	buf = binary.LittleEndian.AppendUint64(buf, r.mark)
	buf = append(buf, make([]byte, 8)...)
	return append(buf, r.payload...)
}

func stamp(raw []byte, salt uint64, place pos, seq uint64, durable pos) {
	binary.LittleEndian.PutUint64(raw[12:], seq)
	binary.LittleEndian.PutUint64(raw[36:], uint64(durable))
	binary.LittleEndian.PutUint32(raw[8:], checksum(raw[:recordHead], raw[recordHead:], salt, place))
}

func checksum(head, payload []byte, salt uint64, place pos) uint32 {
	var where [16]byte
	binary.LittleEndian.PutUint64(where[:], salt)
	binary.LittleEndian.PutUint64(where[8:], uint64(place))
	sum := crc32.Checksum(where[:], castagnoli)
	sum = crc32.Update(sum, castagnoli, head[:8])
	sum = crc32.Update(sum, castagnoli, head[12:])
	return crc32.Update(sum, castagnoli, payload)
}

// decodeHead reads the first recordHead bytes and the payload's length. It is
// false for what no journal has written; the checksum is not looked at.
func decodeHead(head []byte) (r record, length int, ok bool) {
	r = record{
		kind:    head[2],
		seq:     binary.LittleEndian.Uint64(head[12:]),
		intent:  binary.LittleEndian.Uint64(head[20:]),
		mark:    binary.LittleEndian.Uint64(head[28:]),
		durable: pos(binary.LittleEndian.Uint64(head[36:])),
	}
	n := binary.LittleEndian.Uint32(head[4:])
	ok = head[0] == magic0 && head[1] == magic1 && head[3] == 0 &&
		r.kind >= kindEvent && r.kind <= kindAbandon && n <= MaxPayload
	return r, int(n), ok
}

// walk calls f with each record in buf, which holds whole ones.
func walk(buf []byte, f func(raw []byte, r record)) {
	for len(buf) > 0 {
		r, n, _ := decodeHead(buf)
		f(buf[:recordHead+n], r)
		buf = buf[recordHead+n:]
	}
}
