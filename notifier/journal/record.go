package journal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
)

// A position in a stream has the segment number in the upper 32 bits and the offset
// in that segment's file in the lower. Later positions compare greater.
type position uint64

const lastPos = position(math.MaxUint64)

func at(segment uint64, offset int64) position { return position(segment<<32 | uint64(offset)) }
func (p position) segment() uint64             { return uint64(p >> 32) }
func (p position) offset() int64               { return int64(p & math.MaxUint32) }

// A record on disk, little endian:
//
//	 0  magic, two bytes that UTF-8 text cannot contain
//	 2  kind
//	 3  zero
//	 4  payload length   uint32
//	 8  crc32c           uint32, over the salt, the record's position, and all of the record but this field
//	12  seq              uint64, of an event; else 0
//	20  intent           uint64, that is opened, abandoned or completed; else 0
//	28  order number     uint64
//	36  durable          uint64, the position before which everything was durable when this was written
//	44  payload
//
// Because of salt and position, neither bytes inside a payload nor old content of a
// reused disk block can be taken for a record.
const recordHead = 44

const (
	magic0, magic1 = 0xF5, 0xC1

	kindEvent   = 1
	kindIntent  = 2
	kindAbandon = 3
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type record struct {
	kind               byte
	seq, intent, order uint64
	durable            position
	payload            []byte
	again              bool // not on disk: repeats the record of an open intent
}

func (r *record) check() error {
	most := MaxPayload
	if r.kind == kindIntent && !r.again { // earlier versions accepted larger ones
		most = MaxIntent
	}
	if len(r.payload) > most {
		return fmt.Errorf("%w: it has %d bytes; at most %d are allowed", ErrTooLarge, len(r.payload), most)
	}
	return nil
}

// encode appends r without number, position and checksum, which stamp sets
// once they are known.
func (r record) encode(buf []byte) []byte {
	buf = slices.Grow(buf, recordHead+len(r.payload))
	buf = append(buf, magic0, magic1, r.kind, 0)
	buf = binary.LittleEndian.AppendUint32(buf, uint32(len(r.payload)))
	buf = append(buf, make([]byte, 12)...)
	buf = binary.LittleEndian.AppendUint64(buf, r.intent)
	buf = binary.LittleEndian.AppendUint64(buf, r.order)
	buf = append(buf, make([]byte, 8)...)
	return append(buf, r.payload...)
}

func stamp(raw []byte, salt uint64, pos position, seq uint64, durable position) {
	binary.LittleEndian.PutUint64(raw[12:], seq)
	binary.LittleEndian.PutUint64(raw[36:], uint64(durable))
	binary.LittleEndian.PutUint32(raw[8:], checksum(raw[:recordHead], raw[recordHead:], salt, pos))
}

func checksum(head, payload []byte, salt uint64, pos position) uint32 {
	var where [16]byte
	binary.LittleEndian.PutUint64(where[:], salt)
	binary.LittleEndian.PutUint64(where[8:], uint64(pos))
	sum := crc32.Checksum(where[:], castagnoli)
	sum = crc32.Update(sum, castagnoli, head[:8])
	sum = crc32.Update(sum, castagnoli, head[12:])
	return crc32.Update(sum, castagnoli, payload)
}

// decodeHead decodes the first recordHead bytes of a record and returns the length
// of its payload. ok is false if the fields are invalid; the checksum is not verified.
func decodeHead(head []byte) (r record, length int, ok bool) {
	r = record{
		kind:    head[2],
		seq:     binary.LittleEndian.Uint64(head[12:]),
		intent:  binary.LittleEndian.Uint64(head[20:]),
		order:   binary.LittleEndian.Uint64(head[28:]),
		durable: position(binary.LittleEndian.Uint64(head[36:])),
	}
	n := binary.LittleEndian.Uint32(head[4:])
	ok = head[0] == magic0 && head[1] == magic1 && head[3] == 0 &&
		r.kind >= kindEvent && r.kind <= kindAbandon && n <= MaxPayload
	return r, int(n), ok
}

// walk calls f with each record in buf, which contains complete records.
func walk(buf []byte, f func(raw []byte, r record)) {
	for len(buf) > 0 {
		r, n, _ := decodeHead(buf)
		f(buf[:recordHead+n], r)
		buf = buf[recordHead+n:]
	}
}
