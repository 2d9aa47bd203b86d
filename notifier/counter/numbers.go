package counter

import (
	"context"
	"time"
)

// Class says what a request counts as. A request has one class, but for a
// retag, which is a push too.
type Class string

const (
	Pull     Class = "pull"     // a manifest or an index went out
	Child    Class = "child"    // a manifest of an index went out, asked for by digest
	Head     Class = "head"     // somebody looked whether there is something new
	Artifact Class = "artifact" // a signature, an attestation, a list of referrers
	Ignored  Class = "ignored"  // by a user agent or an actor that the operator named
	Push     Class = "push"     // a completed PUT
	Retag    Class = "retag"    // a push of a digest that has another tag
)

// Classes are all classes, in the order in which their numbers are stored. A
// new one goes to the end.
var Classes = [...]Class{Pull, Child, Head, Artifact, Ignored, Push, Retag}

func (c Class) index() int {
	for i, k := range Classes {
		if k == c {
			return i
		}
	}
	return -1
}

// Fact is what an event says to the counters.
type Fact struct {
	Repository string
	Tag        string    // empty: counted for the repository alone
	Digest     string    // "sha256:…"; by it a push is known for a retag
	Class      Class     // empty: nothing to count, but Children may be learned
	Deleted    bool      `json:",omitempty"` // Tag was deleted, or Digest if there is no Tag; Class is empty
	Supporting bool      `json:",omitempty"` // Digest says something about another image
	Time       time.Time // gives the day, in UTC
	Seq        uint64    `json:",omitempty"` // of the event in its stream; 0: it can't have been folded before
	Children   []string  // digests that the index Digest lists, if Classifier.Class called them fresh
}

// Totals are the numbers of one repository since the beginning. Classes that
// never happened are not in Counts.
type Totals struct {
	Name     string
	Counts   map[Class]int64
	LastPull time.Time // zero: never
	LastPush time.Time
}

// Day holds the numbers of one repository on one day.
type Day struct {
	Date   string // 2006-01-02, UTC
	Counts map[Class]int64
}

// Source is where numbers are read: a Counter gives those of this disk, a Sum
// those of all replicas. Both are safe for concurrent use and neither looks at
// who is asking.
type Source interface {
	// Repositories lists every repository that was counted, by name.
	Repositories(ctx context.Context) ([]Totals, error)
	// Repository gives one repository and its numbers by tag; false if nothing
	// was ever counted for it.
	Repository(ctx context.Context, name string) (Totals, map[string]map[Class]int64, bool, error)
	// Daily gives the last days, today included, oldest first. Days without
	// numbers are there with empty Counts. At most KeepDays.
	Daily(ctx context.Context, name string, days int) ([]Day, error)
}

// lastDays gives the dates that Daily answers with.
func lastDays(now time.Time, days int) []Day {
	days = min(max(days, 1), KeepDays)
	list := make([]Day, days)
	for i := range list {
		list[i].Date = dateOf(dayOf(now) + int64(i-days+1))
	}
	return list
}
