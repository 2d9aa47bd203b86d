package journal

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
)

// errInvalid is returned by a scanner for bytes that are not a complete record.
var errInvalid = errors.New("not a valid record")

// A scanner reads the records of one file in order.
type scanner struct {
	r       *bufio.Reader
	salt    uint64
	segment uint64
	offset  int64 // of the next record
	end     int64
	head    [recordHead]byte
}

// reset prepares sc to read the records of a segment in f, from offset to end.
func (sc *scanner) reset(f io.ReaderAt, salt, number uint64, offset, end int64) {
	section := io.NewSectionReader(f, offset, end-offset)
	if sc.r == nil {
		sc.r = bufio.NewReaderSize(section, 64<<10)
	} else {
		sc.r.Reset(section)
	}
	sc.salt, sc.segment, sc.offset, sc.end = salt, number, offset, end
}

// next reads the record at sc.offset and advances past it. The payload is stored
// in buf if it fits. It returns io.EOF at the end, errInvalid for an invalid
// record, at which sc.offset stays, or an error of the disk.
func (sc *scanner) next(buf []byte) (record, error) {
	if sc.offset >= sc.end {
		return record{}, io.EOF
	}
	if err := readFull(sc.r, sc.head[:]); err != nil {
		return record{}, err
	}
	r, n, ok := decodeHead(sc.head[:])
	if !ok || sc.offset+recordHead+int64(n) > sc.end {
		return record{}, errInvalid
	}
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	r.payload = buf[:n]
	if err := readFull(sc.r, r.payload); err != nil {
		return record{}, err
	}
	sum := checksum(sc.head[:], r.payload, sc.salt, at(sc.segment, sc.offset))
	if sum != binary.LittleEndian.Uint32(sc.head[8:]) {
		return record{}, errInvalid
	}
	sc.offset += recordHead + int64(n)
	return r, nil
}

func readFull(r io.Reader, buf []byte) error {
	_, err := io.ReadFull(r, buf)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errInvalid
	}
	return err
}

// search calls f for the valid records that begin at or after offset, at any byte,
// until f returns true.
func search(file io.ReaderAt, salt, number uint64, offset, end int64, f func(r record) (stop bool)) error {
	var sc scanner
	var window [64 << 10]byte
	for offset <= end-recordHead {
		n, err := file.ReadAt(window[:min(int64(len(window)), end-offset)], offset)
		if err != nil && err != io.EOF {
			return err
		}
		if n < recordHead {
			return nil // the file ends before end
		}
		skip := n - recordHead + 1
		for i := range skip {
			if window[i] != magic0 {
				continue
			}
			if _, _, ok := decodeHead(window[i : i+recordHead]); !ok {
				continue
			}
			sc.reset(file, salt, number, offset+int64(i), end)
			r, err := sc.next(nil)
			if err == errInvalid {
				continue
			}
			if err != nil {
				return err
			}
			if f(r) {
				return nil
			}
			skip = int(sc.offset - offset)
			break
		}
		offset += int64(skip)
	}
	return nil
}
