// Package counts has the classes of requests and the numbers that are kept of them:
// the row of numbers of a repository, a tag or a day, and its encodings in the store
// and in Redis.
//
// It neither stores nor sends anything. Encodings and the order of the classes are on
// disk and in Redis: they can be added to, not changed.
package counts

import (
	"context"
	"time"
)

// KeepDays is the number of days, including today, for which daily numbers are
// kept.
const KeepDays = 400

// MaxTags bounds the tags in the result of Source.Repository, and so the cost of reading
// one.
const MaxTags = 10_000

// Class is the kind of a request as it is counted. A request has one class, except
// that a retag is counted as a push as well.
type Class string

const (
	Pull     Class = "pull"     // a manifest or an index was sent
	Child    Class = "child"    // a manifest that an index lists was sent, requested by digest
	Head     Class = "head"     // a check whether a tag or digest exists or has changed
	Artifact Class = "artifact" // a signature, an attestation, a list of referrers
	Ignored  Class = "ignored"  // from a user agent or an actor that the operator excludes
	Push     Class = "push"     // a completed PUT
	Retag    Class = "retag"    // a push of a digest that has another tag
)

// Classes lists all classes in the order in which their numbers are stored. New
// ones are appended.
var Classes = [...]Class{Pull, Child, Head, Artifact, Ignored, Push, Retag}

// Index returns the position of the class in Classes; -1 if it is unknown.
func (c Class) Index() int {
	for i, k := range Classes {
		if k == c {
			return i
		}
	}
	return -1
}

// Fact is the part of an event that is counted.
type Fact struct {
	Repository string
	Tag        string    // empty: counted for the repository only
	Digest     string    // "sha256:…"; identifies pushes when retags are counted
	Class      Class     // empty: nothing is counted, but Children may be learned
	Deleted    bool      `json:",omitempty"` // Tag was deleted, or Digest if Tag is empty; Class is empty
	Supporting bool      `json:",omitempty"` // Digest is an artifact that refers to another image
	Time       time.Time // its UTC day is the day that is counted
	Seq        uint64    `json:",omitempty"` // sequence number of the event in its stream; 0: it can't have been folded before
	Children   []string  // digests that the index Digest lists, if classify.Classifier.Class returned them as fresh
}

// Totals are the all-time numbers of a repository. Counts has no entry for a class
// that never occurred.
type Totals struct {
	Name     string
	Counts   map[Class]int64
	LastPull time.Time // zero: never
	LastPush time.Time
}

// Day is the numbers of a repository on one day.
type Day struct {
	Date   string // 2006-01-02, UTC
	Counts map[Class]int64
}

// Source reads numbers: a Counter has those of this data folder, a Sum those of all
// registries. Both are safe for concurrent use. Neither checks who is asking.
type Source interface {
	// Repositories lists every repository that was counted, sorted by name.
	Repositories(ctx context.Context) ([]Totals, error)
	// Repository returns the totals of a repository and its counts by tag; false if
	// nothing was ever counted for it. At most MaxTags tags are returned.
	Repository(ctx context.Context, name string) (Totals, map[string]map[Class]int64, bool, error)
	// Daily returns the last days including today, oldest first, at most KeepDays.
	// Days without numbers have empty Counts.
	Daily(ctx context.Context, name string, days int) ([]Day, error)
}

// LastDays returns the days of a Source.Daily result, without counts. now is the current
// time.
func LastDays(now time.Time, days int) []Day {
	days = min(max(days, 1), KeepDays)
	list := make([]Day, days)
	for i := range list {
		list[i].Date = DateOf(DayOf(now) + int64(i-days+1))
	}
	return list
}
