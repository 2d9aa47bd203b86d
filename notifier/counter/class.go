package counter

import "time"

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
