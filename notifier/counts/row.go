package counts

import (
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Row is the counts of a repository, a tag or a day.
type Row struct {
	Counts [len(Classes)]uint64 // in the order of Classes

	LastPull, LastPush int64 // of totals: unix milliseconds, 0: never

	// Position of a tag determines the hash in Redis that has it. The tags of a
	// repository have positions from 1. In totals it is the highest one.
	Position uint64
	TagState TagState // of tags
}

// TagState says whether a tag was deleted, and on which day. In a pending row, 0 means that
// this has not changed.
type TagState uint64

const (
	Present     TagState = 1 // pushed again
	deletedBase TagState = 2 // plus the day
)

// DeletedOn is the state of a tag that was deleted on a day.
func DeletedOn(day int64) TagState { return deletedBase + TagState(max(day, 0)) }

// Deleted reports whether the tag was deleted.
func (g TagState) Deleted() bool { return g >= deletedBase }

// Day returns the day on which the tag was deleted; false if it was not deleted.
func (g TagState) Day() (int64, bool) { return int64(g - min(g, deletedBase)), g.Deleted() }

// ErrDamagedRow is the error for an invalid encoding.
var ErrDamagedRow = errors.New("damaged row of counts")

// An encoded row is a sequence of uvarints. The bits of the first one say which fields
// follow. The classes have the highest bits, so that classes can be added.
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
	}{
		{hasLastPull, uint64(r.LastPull)}, {hasLastPush, uint64(r.LastPush)},
		{hasPosition, r.Position}, {hasTagState, uint64(r.TagState)},
	}
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

// DecodeRow decodes a row. It returns an error for a row with a class that only a newer
// version knows, since writing the row back would lose its count.
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

// Add returns the sum of two rows. o is the later one.
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

// Later returns the later of two times in unix milliseconds. A time in the future, which
// was recorded while the clock was ahead, is used only if there is no other.
func Later(old, new int64, now time.Time) int64 {
	limit := now.Add(24 * time.Hour).UnixMilli()
	if new == 0 || new < old && old <= limit || new > limit && old != 0 && old <= limit {
		return old
	}
	return new
}

// Sub subtracts the counts of o, and resets the state of a tag if it is that of o. Position
// and times stay.
func (r Row) Sub(o Row) Row {
	for i, n := range o.Counts {
		r.Counts[i] -= min(n, r.Counts[i])
	}
	if r.TagState == o.TagState {
		r.TagState = 0
	}
	return r
}

// Counted reports whether any count is not 0.
func (r Row) Counted() bool { return r.Counts != [len(Classes)]uint64{} }

// ByClass returns the counts that are not 0.
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

// ListTotals returns the rows of repositories that have counts as Totals, sorted by name.
func ListTotals(rows map[string]Row) []Totals {
	list := make([]Totals, 0, len(rows))
	for name, r := range rows {
		if r.Counted() {
			list = append(list, r.Totals(name))
		}
	}
	slices.SortFunc(list, func(a, b Totals) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// ByTag returns the counts of the rows of tags.
func ByTag(rows map[string]Row) map[string]map[Class]int64 {
	m := make(map[string]map[Class]int64, len(rows))
	for tag, r := range rows {
		m[tag] = r.ByClass()
	}
	return m
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

// Text returns the row as it is written to Redis; empty for a row without counts, which is
// not written.
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

// ParseText parses a row in Redis. It ignores letters that only a newer version knows.
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
