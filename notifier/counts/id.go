package counts

import (
	"strconv"
	"time"
)

// Kind is the kind of a row.
type Kind byte

const (
	PerRepository Kind = 'a' // the name is empty
	PerDay        Kind = 'd' // the name is the number of days since 1970, UTC
	PerTag        Kind = 't'
)

// ID identifies a row: its repository, and the day or tag that it counts.
type ID struct {
	Repository string
	Kind       Kind
	Name       string
}

// OfRepository identifies the totals of a repository.
func OfRepository(repository string) ID { return ID{repository, PerRepository, ""} }

// OfDay identifies the counts of a repository on a day.
func OfDay(repository string, day int64) ID { return ID{repository, PerDay, DayName(day)} }

// OfTag identifies the counts of a tag.
func OfTag(repository, tag string) ID { return ID{repository, PerTag, tag} }

// String describes what the row counts, within its repository.
func (id ID) String() string {
	switch id.Kind {
	case PerRepository:
		return "all"
	case PerDay:
		if day, ok := ParseDay(id.Name); ok {
			return DateOf(day)
		}
	}
	return "tag " + id.Name
}

// DayOf returns the day of a time, as the number of days since 1970, UTC.
func DayOf(t time.Time) int64 {
	s := t.Unix()
	if s < 0 {
		return 0
	}
	return s / (24 * 3600)
}

// DayName returns the name of a day's row.
func DayName(day int64) string { return strconv.FormatInt(day, 10) }

// ParseDay parses the name of a day's row; false if it is not valid.
func ParseDay(name string) (int64, bool) {
	day, err := strconv.ParseInt(name, 10, 64)
	return day, err == nil
}

// DateOf returns the date of a day as 2006-01-02.
func DateOf(day int64) string { return time.Unix(day*24*3600, 0).UTC().Format(time.DateOnly) }
