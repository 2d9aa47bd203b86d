// Package counts defines what is counted: the classes of requests, the facts that an
// event contributes, and the rows of counts of a repository, a tag or a day with their
// encodings on disk and in Redis.
//
// Encoded rows outlive a version of the program. Classes and fields can be added, but the
// existing ones can't be changed. Package counter stores and publishes the rows.
package counts

import (
	"context"
	"time"
)

// KeepDays is the number of days, including today, for which daily counts are kept.
const KeepDays = 400

// MaxTags is the maximum number of tags in a result of Source.Repository. It bounds the
// cost of a request.
const MaxTags = 10_000

// Class is the class of a request. A request has one class, except that a retag is counted
// as a push as well.
type Class string

const (
	Pull     Class = "pull"     // GET of an image manifest or an index
	Child    Class = "child"    // GET by digest of a manifest that an index lists
	Head     Class = "head"     // HEAD: checks whether a tag or digest exists or has changed
	Artifact Class = "artifact" // of a signature, an attestation or a list of referrers
	Ignored  Class = "ignored"  // by a user agent or an actor that the operator excludes
	Push     Class = "push"     // PUT
	Retag    Class = "retag"    // a push of a digest that has another tag
)

// Classes lists all classes in the order in which their counts are encoded. New classes
// are appended.
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
	Class      Class     // empty: nothing is counted
	Deleted    bool      `json:",omitempty"` // Tag was deleted, or Digest if Tag is empty; Class is empty
	Supporting bool      `json:",omitempty"` // Digest is an artifact that refers to another image
	Unlisted   bool      `json:",omitempty"` // a pull that an account reported which is not configured: counted only for a known image
	Known      bool      `json:",omitempty"` // an unlisted pull's image is known to the caller
	Time       time.Time // is counted on its day, UTC
	Seq        uint64    `json:",omitempty"` // sequence number of the event in its stream; 0: it was never folded before
	Children   []string  // digests of the children of the index Digest, if classify.Classifier.Class returned them as fresh
}

// Totals are the all-time counts of a repository. Counts has no entry for a class with a
// count of 0.
type Totals struct {
	Name     string
	Counts   map[Class]int64
	LastPull time.Time // zero: never
	LastPush time.Time
}

// Day is the counts of a repository on one day.
type Day struct {
	Date   string // 2006-01-02, UTC
	Counts map[Class]int64
}

// Source reads counts: a counter.Counter those of this data folder, a rediscounts.Sum those
// of all registries. Both are safe for concurrent use. They do not check whether the caller
// may see a repository.
type Source interface {
	// Repositories lists every repository that was counted, sorted by name.
	Repositories(ctx context.Context) ([]Totals, error)
	// Repository returns the totals of a repository and its counts by tag; false if
	// nothing was ever counted for it. At most MaxTags tags are returned.
	Repository(ctx context.Context, name string) (Totals, map[string]map[Class]int64, bool, error)
	// Daily returns the last days including today, oldest first, at most KeepDays.
	// Days without counts have empty Counts.
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
