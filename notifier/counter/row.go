package counter

import (
	"encoding/binary"
	"errors"
	"strconv"
	"time"
)

// row is the value stored under a rowID.
type row struct {
	counts [len(Classes)]uint64

	lastPull, lastPush int64 // of totals: unix milliseconds, 0: never

	// position of a tag says which hash in Redis has it. Tags are numbered from 1
	// in their repository. In totals it is the highest position in use.
	position uint64
	tagState tagState // of tags
}

// tagState says whether a tag exists, and on which day it was deleted. In a pending
// row, 0 means that it has not changed.
type tagState uint64

const (
	present     tagState = 1 // pushed again
	deletedBase tagState = 2 // plus the day
)

func deletedOn(day int64) tagState { return deletedBase + tagState(max(day, 0)) }

// day returns when the tag was deleted; false if it exists.
func (g tagState) day() (int64, bool) { return int64(g - min(g, deletedBase)), g >= deletedBase }

var errDamagedRow = errors.New("damaged row of numbers")

// An encoded row is a sequence of uvarints. The bits of the first say which of
// the others are present. The classes have the highest bits, so that more can be
// added.
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

// decodeRow rejects a row with bits that only a newer version knows: writing it back
// would lose them.
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

// with returns the sum of two rows, of which o is the later one.
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

// later returns the newer of two times, but ignores one that is in the future, which
// a clock that was ahead produced.
func later(old, new int64, now time.Time) int64 {
	limit := now.Add(24 * time.Hour).UnixMilli()
	if new == 0 || new < old && old <= limit || new > limit && old != 0 && old <= limit {
		return old
	}
	return new
}

// without subtracts what was sent; position and times stay.
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

// In Redis a row is text, a letter before each number: "p12u1" is twelve pulls and
// one push.
const (
	classLetters    = "pchaiur" // in the order of Classes
	letterPull      = 'P'       // time of the last pull
	letterPush      = 'U'       // time of the last push
	letterPositions = 't'
)

// text returns the row as it is in Redis; empty if Redis does not have it.
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

// parseText ignores letters that it does not know, which a newer version wrote.
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
