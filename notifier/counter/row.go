package counter

import (
	"encoding/binary"
	"errors"
	"strconv"
	"time"
)

// row is what is stored under a rowID.
type row struct {
	counts [len(Classes)]uint64

	lastPull, lastPush int64 // of totals: unix milliseconds, 0: never

	// place is where Redis has a tag, numbered from 1 in its repository; of
	// totals, how many positions were given out.
	position uint64
	// gone is when a tag was deleted.
	tagState tagState
}

// gone of a row that waits is 0 when nothing happened.
type tagState uint64

const (
	present     tagState = 1 // pushed again
	deletedBase tagState = 2 // and a day
)

func deletedOn(day int64) tagState { return deletedBase + tagState(max(day, 0)) }

// day is false for a tag that is there.
func (g tagState) day() (int64, bool) { return int64(g - min(g, deletedBase)), g >= deletedBase }

var errDamagedRow = errors.New("damaged numbers")

// Bits of a row's first number say what follows. The classes come last, since
// there may be more of them one day.
const (
	hasLastPull = 1 << iota
	hasLastPush
	hasPosition
	hasTagState
	firstClass = 4
)

func (r row) encode() []byte {
	var has uint64
	for i, n := range r.counts {
		if n > 0 {
			has |= 1 << (firstClass + i)
		}
	}
	fields := []struct {
		bit uint64
		val uint64
	}{{hasLastPull, uint64(r.lastPull)}, {hasLastPush, uint64(r.lastPush)}, {hasPosition, r.position}, {hasTagState, uint64(r.tagState)}}
	for _, f := range fields {
		if f.val != 0 {
			has |= f.bit
		}
	}
	b := binary.AppendUvarint(make([]byte, 0, 32), has)
	for _, f := range fields {
		if f.val != 0 {
			b = binary.AppendUvarint(b, f.val)
		}
	}
	for _, n := range r.counts {
		if n > 0 {
			b = binary.AppendUvarint(b, n)
		}
	}
	return b
}

// decodeRow refuses what a newer program knows and this one would lose.
func decodeRow(b []byte) (row, error) {
	bad := false
	next := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			bad = true
			return 0
		}
		b = b[n:]
		return v
	}
	var r row
	has := next()
	if has>>(firstClass+len(Classes)) != 0 {
		return row{}, errDamagedRow
	}
	if has&hasLastPull != 0 {
		r.lastPull = int64(next())
	}
	if has&hasLastPush != 0 {
		r.lastPush = int64(next())
	}
	if has&hasPosition != 0 {
		r.position = next()
	}
	if has&hasTagState != 0 {
		r.tagState = tagState(next())
	}
	for i := range r.counts {
		if has&(1<<(firstClass+i)) != 0 {
			r.counts[i] = next()
		}
	}
	if bad || len(b) > 0 {
		return row{}, errDamagedRow
	}
	return r, nil
}

// with gives the numbers of two rows together, of which o is the later one.
func (r row) with(o row, now time.Time) row {
	r.lastPull = later(r.lastPull, o.lastPull, now)
	r.lastPush = later(r.lastPush, o.lastPush, now)
	for i, n := range o.counts {
		r.counts[i] += n
	}
	if o.tagState != 0 {
		r.tagState = o.tagState
	}
	return r
}

// later is the newer of two times, unless it is one that a clock made that was
// ahead.
func later(old, new int64, now time.Time) int64 {
	limit := now.Add(24 * time.Hour).UnixMilli()
	if new == 0 || new < old && old <= limit || new > limit && old != 0 && old <= limit {
		return old
	}
	return new
}

// without takes away what of o was sent; the positions and times stay.
func (r row) without(o row) row {
	for i, n := range o.counts {
		r.counts[i] -= min(n, r.counts[i])
	}
	if r.tagState == o.tagState {
		r.tagState = 0
	}
	return r
}

func (r row) counted() bool { return r.counts != [len(Classes)]uint64{} }

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

// Redis has a row as letters, each with a number: "p12u1" is twelve pulls and a
// push.
const (
	classLetters    = "pchaiur" // in the order of Classes
	letterPull      = 'P'       // time of the last
	letterPush      = 'U'
	letterPositions = 't'
)

// text is the row as Redis has it; empty if Redis has none.
func (r row) text(k kind) string {
	if !r.counted() {
		return ""
	}
	var b []byte
	add := func(letter byte, n uint64) {
		if n > 0 {
			b = strconv.AppendUint(append(b, letter), n, 10)
		}
	}
	for i, n := range r.counts {
		add(classLetters[i], n)
	}
	if k == totals {
		add(letterPull, uint64(max(r.lastPull, 0)))
		add(letterPush, uint64(max(r.lastPush, 0)))
		add(letterPositions, r.position)
	}
	return string(b)
}

// parseText passes over what it doesn't know: a newer program may have written
// it.
func parseText(s string) row {
	var r row
	for i := 0; i < len(s); {
		letter := s[i]
		end := i + 1
		for end < len(s) && '0' <= s[end] && s[end] <= '9' {
			end++
		}
		n, err := strconv.ParseUint(s[i+1:end], 10, 63)
		i = end
		if err != nil {
			continue
		}
		switch letter {
		case letterPull:
			r.lastPull = int64(n)
		case letterPush:
			r.lastPush = int64(n)
		case letterPositions:
			r.position = n
		}
		for class := range classLetters {
			if classLetters[class] == letter {
				r.counts[class] = n
			}
		}
	}
	return r
}
