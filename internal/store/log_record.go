package store

import (
	"encoding/binary"
	"hash/crc32"
)

// A record of the log, integers big endian, padded with zeros to a multiple of
// 8 bytes:
//
//	4  CRC-32C of what follows, without the padding
//	4  length of the batch
//	8  salt, which all records have that were written since an Open
//	8  number of the batch; each is one more than that before
//	8  number of the last batch that was fsynced when this was written
//	…  the batch, as Pebble represents it
//
// The salt is random and secret. Without it a value that somebody has stored
// could pose as a record, and so could the record of a batch that a power cut
// has taken back and whose number was given again.
type record struct {
	number, synced uint64
	batch          []byte
}

const recordHead = 32

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func appendRecord(b []byte, salt, number, synced uint64, batch []byte) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(batch)))
	b = binary.BigEndian.AppendUint64(b, salt)
	b = binary.BigEndian.AppendUint64(b, number)
	b = binary.BigEndian.AppendUint64(b, synced)
	b = append(b, batch...)
	binary.BigEndian.PutUint32(b[start:], crc32.Checksum(b[start+4:], castagnoli))
	return append(b, make([]byte, padding(len(b)-start))...)
}

func padding(n int) int { return -n & 7 }

// parseRecord reads the record at the beginning of b and returns its length
// with the padding, 0 if there is none of this salt.
func parseRecord(b []byte, salt uint64) (r record, n int) {
	if len(b) < recordHead || binary.BigEndian.Uint64(b[8:]) != salt {
		return record{}, 0
	}
	length := uint64(binary.BigEndian.Uint32(b[4:]))
	if length > uint64(len(b)-recordHead) {
		return record{}, 0
	}
	r.number = binary.BigEndian.Uint64(b[16:])
	r.synced = binary.BigEndian.Uint64(b[24:])
	n = recordHead + int(length)
	if binary.BigEndian.Uint32(b) != crc32.Checksum(b[4:n], castagnoli) {
		return record{}, 0
	}
	r.batch = b[recordHead:n:n]
	return r, min(n+padding(n), len(b))
}
