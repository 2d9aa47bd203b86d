package counter

import (
	"encoding/binary"
	"errors"
	"time"
)

// row is what is stored under a rowID. The times are kept with the totals only.
type row struct {
	lastPull, lastPush int64 // unix milliseconds, 0: never
	counts             [len(Classes)]uint64
}

var errDamagedRow = errors.New("damaged numbers")

func (r row) encode() []byte {
	b := make([]byte, 0, 32)
	b = binary.AppendVarint(b, r.lastPull)
	b = binary.AppendVarint(b, r.lastPush)
	for _, n := range r.counts {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

// decodeRow accepts fewer numbers than there are classes: those that came to
// be known later are zero.
func decodeRow(b []byte) (row, error) {
	var r row
	for _, t := range []*int64{&r.lastPull, &r.lastPush} {
		v, n := binary.Varint(b)
		if n <= 0 {
			return row{}, errDamagedRow
		}
		*t, b = v, b[n:]
	}
	for i := 0; len(b) > 0; i++ {
		v, n := binary.Uvarint(b)
		if n <= 0 || i == len(r.counts) {
			return row{}, errDamagedRow
		}
		r.counts[i], b = v, b[n:]
	}
	return r, nil
}

func (r *row) add(o row) {
	r.lastPull = max(r.lastPull, o.lastPull)
	r.lastPush = max(r.lastPush, o.lastPush)
	for i, n := range o.counts {
		r.counts[i] += n
	}
}

func (r row) byClass() map[Class]int64 {
	m := make(map[Class]int64)
	for i, n := range r.counts {
		if n > 0 {
			m[Classes[i]] = int64(n)
		}
	}
	return m
}

func (r row) totals(name string) Totals {
	return Totals{Name: name, Counts: r.byClass(), LastPull: fromMillis(r.lastPull), LastPush: fromMillis(r.lastPush)}
}

func fromMillis(ms int64) time.Time {
	if ms <= 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
