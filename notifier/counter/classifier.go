package counter

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/internal/generations"
)

// Bounds of ClassifierConfig.HeadWindow.
const (
	DefaultHeadWindow = 10 * time.Second
	MaxHeadWindow     = 10 * time.Minute
)

// ValidateHeadWindow returns an error if a ClassifierConfig.HeadWindow is out of range.
func ValidateHeadWindow(d time.Duration) error {
	if d <= 0 || d > MaxHeadWindow {
		return fmt.Errorf("%s is out of range; it must be more than 0 and at most 10m, since clients are remembered that long", d)
	}
	return nil
}

// ClassifierConfig says what Classifier ignores and how much it may remember.
type ClassifierConfig struct {
	// Requests of these are counted as Ignored. In a pattern * stands for any
	// characters, none included, and ? for one. User agents are compared
	// without regard to case.
	IgnoreUserAgents []string
	IgnoreActors     []string

	HeadWindow  time.Duration // how long a HEAD, or a push, has to do with a GET that follows; 0: DefaultHeadWindow
	MaxChildren int           // indexes and what they list kept in memory, 25 to 60 bytes each; 0: 1<<20
	MaxHeads    int           // HEADs kept in memory, about 100 bytes each, and as many pushes; 0: 1<<14

	Now func() time.Time // nil: time.Now
}

// Request is what Classifier looks at: a manifest request that is about to be
// answered with success.
type Request struct {
	Method     string // GET, HEAD or PUT
	Repository string
	Tag        string   // empty when asked for by digest
	Digest     string   // of what is answered
	Kind       string   // image, index or artifact
	Children   []string // digests that an index lists
	Client     string   // an address, with a port or without; kept only as a hash under a key that dies with the process
	UserAgent  string
	Actor      string
}

// Classifier decides of which class a request is. It is asked before the first byte
// of an answer goes out, so it parses nothing, waits for nothing but a short
// lock, and remembers a bounded number of things. Safe for concurrent use.
//
// Children known to one replica come to the others through Redis within a
// round; a GET by digest that follows a HEAD by tag is matched only if both
// reach the same replica.
type Classifier struct {
	agents, actors patterns

	mu        sync.Mutex
	children  children
	artifacts generations.Map[ChildKey, struct{}] // few, so that a lookup costs nothing
	heads     recentRequests                      // tags by what was asked for with HEAD
	pushed    recentRequests                      // what a client has just pushed
}

// NewClassifier reports patterns that can't be meant.
func NewClassifier(cfg ClassifierConfig) (*Classifier, error) {
	agents, err := newPatterns(cfg.IgnoreUserAgents, true)
	if err != nil {
		return nil, fmt.Errorf("ignored user agents: %w", err)
	}
	actors, err := newPatterns(cfg.IgnoreActors, false)
	if err != nil {
		return nil, fmt.Errorf("ignored actors: %w", err)
	}
	if cfg.HeadWindow == 0 {
		cfg.HeadWindow = DefaultHeadWindow
	}
	if cfg.MaxChildren == 0 {
		cfg.MaxChildren = 1 << 20
	}
	if cfg.MaxHeads == 0 {
		cfg.MaxHeads = 1 << 14
	}
	if err := ValidateHeadWindow(cfg.HeadWindow); err != nil {
		return nil, fmt.Errorf("head window: %w", err)
	}
	if cfg.MaxChildren < 0 || cfg.MaxHeads < 0 {
		return nil, errors.New("limits must not be negative")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Classifier{
		agents:    agents,
		actors:    actors,
		children:  children{half: max(cfg.MaxChildren/2, 1)},
		artifacts: generations.New[ChildKey, struct{}](cfg.MaxChildren / 8),
		heads:     newRecentRequests(cfg.HeadWindow, cfg.MaxHeads, cfg.Now),
		pushed:    newRecentRequests(cfg.HeadWindow, cfg.MaxHeads, cfg.Now),
	}, nil
}

// Class gives the class, the tag to count it for, and the children, if they are
// worth keeping because the index was not known, or had nearly been forgotten.
//
// The first that fits wins: a PUT is a push; what the operator ignores is
// ignored; signatures, attestations and what a referrers tag shows are artifacts,
// by whatever method; a HEAD is a head; a GET by digest is a pull of the tag
// whose HEAD has just shown this digest to the same client, unless the client got
// the digest's index after that; else it is ignored if this client has just pushed
// the digest, else a child if an index lists it, else a pull.
func (r *Classifier) Class(q Request) (class Class, tag string, fresh []string) {
	class = r.fixedClass(q)
	k := childKey(q.Repository, q.Digest)
	_, refers := ReferrersTag(q.Tag)

	r.mu.Lock()
	defer r.mu.Unlock()
	if len(q.Children) > 0 && r.children.addIndex(k, q.Repository, q.Children) {
		fresh = q.Children
	}
	if refers {
		r.artifacts.Put(k.referring(), struct{}{}, 1)
	}
	if class == "" && (refers || r.isArtifact(q, k)) {
		class = Artifact
	}
	switch {
	case class == Push:
		r.notePush(q)
		return class, q.Tag, fresh
	case class != "":
		return class, q.Tag, fresh
	case q.Method == http.MethodHead:
		if q.Tag != "" && q.Client != "" {
			r.heads.add(q.headKey(q.Digest), q.Tag)
		}
		return Head, q.Tag, fresh
	}
	class, tag = Pull, q.Tag
	if tag == "" {
		class, tag = r.classByDigest(q, k)
	}
	r.noteIndex(q)
	return class, tag, fresh
}

// byDigest is the class of a GET by digest.
func (r *Classifier) classByDigest(q Request, k ChildKey) (Class, string) {
	if q.Client != "" {
		if tag, ok := r.heads.tag(q.headKey(q.Digest)); ok {
			return Pull, tag
		}
		if _, ok := r.pushed.tag(q.pushKey()); ok {
			return Ignored, ""
		}
	}
	if r.children.has(k) {
		return Child, ""
	}
	return Pull, ""
}

// push notes that a client has pushed a digest: it may read it back. A HEAD that it
// made before that was to see whether it has to.
func (r *Classifier) notePush(q Request) {
	if q.Client != "" {
		r.pushed.add(q.pushKey(), "")
		r.heads.remove(q.headKey(q.Digest))
	}
}

// maxNotedChildren is for how many children of an index a HEAD is looked for.
const maxNotedChildren = 256

// noteIndex notes that a client has an index: what it gets of the children now, it
// gets because of that.
func (r *Classifier) noteIndex(q Request) {
	if q.Client == "" || r.heads.empty() {
		return
	}
	for _, child := range q.Children[:min(len(q.Children), maxNotedChildren)] {
		r.heads.remove(q.headKey(child))
	}
}

// artifact reports whether the request is for something that says something about
// another image. That is known for a manifest once it was pushed, and by what a
// referrers tag has shown: a GET by digest follows it.
func (r *Classifier) isArtifact(q Request, k ChildKey) bool {
	return q.Kind == "artifact" || r.knownArtifact(k.supporting()) || q.Tag == "" && r.knownArtifact(k.referring())
}

func (r *Classifier) knownArtifact(k ChildKey) bool {
	_, ok := r.artifacts.Get(k)
	return ok
}

func (q *Request) headKey(digest string) requestKey {
	return requestKey{client: host(q.Client), repository: q.Repository, digest: digest}
}

func (q *Request) pushKey() requestKey {
	return requestKey{host(q.Client), q.UserAgent, q.Repository, q.Digest}
}

// apart gives the classes that need no memory.
func (r *Classifier) fixedClass(q Request) Class {
	switch {
	case q.Method == http.MethodPut:
		return Push
	case r.agents.match(q.UserAgent) || r.actors.match(q.Actor):
		return Ignored
	}
	return ""
}

// Learn takes in what Counter.Children stored and what Counter tells: what was
// folded, and what other replicas found.
func (r *Classifier) Learn(all ...IndexEntry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range all {
		if l.Index == artifacts {
			r.artifacts.Put(l.Child, struct{}{}, 1)
		} else {
			r.children.learn(l)
		}
	}
}

// Supporting makes a manifest known as one that says something about another
// image, though what the registry reads of it does not show that.
func (r *Classifier) LearnArtifact(repository, digest string) {
	r.Learn(IndexEntry{Index: artifacts, Child: childKey(repository, digest).supporting()})
}
