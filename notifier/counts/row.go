package counts

import (
	"encoding/binary"
	"errors"
	"strconv"
	"time"
)

// Row is the numbers of a repository, a tag or a day.
type Row struct {
	Counts [len(Classes)]uint64 // in the order of Classes

	LastPull, LastPush int64 // of totals: unix milliseconds, 0: never

	// Position of a tag says which hash in Redis has it. Tags are numbered from 1
	// in their repository. In totals it is the highest position in use.
	Position uint64
	TagState TagState // of tags
}

// TagState says whether a tag exists, and on which day it was deleted. In a pending
// row, 0 means that it has not changed.
type TagState uint64

const (
	Present     TagState = 1 // pushed again
	deletedBase TagState = 2 // plus the day
)

// DeletedOn is the state of a tag that was deleted on a day.
func DeletedOn(day int64) TagState { return deletedBase + TagState(max(day, 0)) }

// Deleted reports whether the tag was deleted.
func (g TagState) Deleted() bool { return g >= deletedBase }

// Day returns when the tag was deleted; false if it was not.
func (g TagState) Day() (int64, bool) { return int64(g - min(g, deletedBase)), g.Deleted() }

// ErrDamagedRow is the error of DecodeRow.
var ErrDamagedRow = errors.New("damaged row of numbers")

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

// Encode returns the row as it is stored on disk.
func (r Row) Encode() []byte {
	var has uint64
	for i, n := range r.Counts {
		if n > 0 {
			has |= 1 << (firstClass + i)
		}
	}
	fields := []struct {
		bit uint64
		val uint64
	}{{hasLastPull, uint64(r.LastPull)}, {hasLastPush, uint64(r.LastPush)}, {hasPosition, r.Position}, {hasTagState, uint64(r.TagState)}}
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
	for _, n := range r.Counts {
		if n > 0 {
			b = binary.AppendUvarint(b, n)
		}
	}
	return b
}

// DecodeRow decodes the result of Encode. It rejects a row with bits that only a newer
// version knows: writing it back would lose them.
func DecodeRow(b []byte) (Row, error) {
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
	var r Row
	has := next()
	if has>>(firstClass+len(Classes)) != 0 {
		return Row{}, ErrDamagedRow
	}
	if has&hasLastPull != 0 {
		r.LastPull = int64(next())
	}
	if has&hasLastPush != 0 {
		r.LastPush = int64(next())
	}
	if has&hasPosition != 0 {
		r.Position = next()
	}
	if has&hasTagState != 0 {
		r.TagState = TagState(next())
	}
	for i := range r.Counts {
		if has&(1<<(firstClass+i)) != 0 {
			r.Counts[i] = next()
		}
	}
	if bad || len(b) > 0 {
		return Row{}, ErrDamagedRow
	}
	return r, nil
}

// Add returns the sum of two rows, of which o is the later one.
func (r Row) Add(o Row, now time.Time) Row {
	r.LastPull = Later(r.LastPull, o.LastPull, now)
	r.LastPush = Later(r.LastPush, o.LastPush, now)
	for i, n := range o.Counts {
		r.Counts[i] += n
	}
	if o.TagState != 0 {
		r.TagState = o.TagState
	}
	return r
}

// Later returns the newer of two times, but ignores one that is in the future, which
// a clock that was ahead produced.
func Later(old, new int64, now time.Time) int64 {
	limit := now.Add(24 * time.Hour).UnixMilli()
	if new == 0 || new < old && old <= limit || new > limit && old != 0 && old <= limit {
		return old
	}
	return new
}

// Sub subtracts what was sent; position and times stay.
func (r Row) Sub(o Row) Row {
	for i, n := range o.Counts {
		r.Counts[i] -= min(n, r.Counts[i])
	}
	if r.TagState == o.TagState {
		r.TagState = 0
	}
	return r
}

// Counted reports whether any number is not 0.
func (r Row) Counted() bool { return r.Counts != [len(Classes)]uint64{} }

// ByClass returns the numbers that are not 0.
func (r Row) ByClass() map[Class]int64 {
	m := make(map[Class]int64)
	for i, n := range r.Counts {
		if n > 0 {
			m[Classes[i]] = int64(n)
		}
	}
	return m
}

// Totals returns the row as the totals of the named repository.
func (r Row) Totals(name string) Totals {
	return Totals{Name: name, Counts: r.ByClass(), LastPull: fromMillis(r.LastPull), LastPush: fromMillis(r.LastPush)}
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

// Text returns the row as it is in Redis; empty if Redis does not have it.
func (r Row) Text(k Kind) string {
	if !r.Counted() {
		return ""
	}
	var b []byte
	add := func(letter byte, n uint64) {
		if n > 0 {
			b = strconv.AppendUint(append(b, letter), n, 10)
		}
	}
	for i, n := range r.Counts {
		add(classLetters[i], n)
	}
	if k == PerRepository {
		add(letterPull, uint64(max(r.LastPull, 0)))
		add(letterPush, uint64(max(r.LastPush, 0)))
		add(letterPositions, r.Position)
	}
	return string(b)
}

// ParseText parses the result of Text. It ignores letters that it does not know, which a
// newer version wrote.
func ParseText(s string) Row {
	var r Row
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
			r.LastPull = int64(n)
		case letterPush:
			r.LastPush = int64(n)
		case letterPositions:
			r.Position = n
		}
		for class := range classLetters {
			if classLetters[class] == letter {
				r.Counts[class] = n
			}
		}
	}
	return r
}
