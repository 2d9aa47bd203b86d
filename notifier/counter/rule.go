package counter

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

// RuleConfig says what Rule ignores and how much it may remember.
type RuleConfig struct {
	// Requests of these are counted as Ignored. In a pattern * stands for any
	// characters, none included, and ? for one. User agents are compared
	// without regard to case.
	IgnoreUserAgents []string
	IgnoreActors     []string

	HeadWindow  time.Duration // how long a HEAD vouches for a GET; 0: 10 s
	MaxChildren int           // children of indexes kept in memory, about 16 bytes each; 0: 1<<20
	MaxHeads    int           // HEADs kept in memory, about 100 bytes each; 0: 1<<14

	Now func() time.Time // nil: time.Now
}

// Request is what Rule looks at: a manifest request that is about to be
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

// Rule decides of which class a request is. It is asked before the first byte
// of an answer goes out, so it parses nothing, waits for nothing but a short
// lock, and remembers a bounded number of things. Safe for concurrent use.
//
// Children known to one replica come to the others through Redis within a
// round; a GET by digest that follows a HEAD by tag is matched only if both
// reach the same replica.
type Rule struct {
	agents, actors patterns

	mu       sync.Mutex
	children children
	heads    heads
}

// NewRule reports patterns that can't be meant.
func NewRule(cfg RuleConfig) (*Rule, error) {
	agents, err := newPatterns(cfg.IgnoreUserAgents, true)
	if err != nil {
		return nil, fmt.Errorf("ignored user agents: %w", err)
	}
	actors, err := newPatterns(cfg.IgnoreActors, false)
	if err != nil {
		return nil, fmt.Errorf("ignored actors: %w", err)
	}
	if cfg.HeadWindow == 0 {
		cfg.HeadWindow = 10 * time.Second
	}
	if cfg.MaxChildren == 0 {
		cfg.MaxChildren = 1 << 20
	}
	if cfg.MaxHeads == 0 {
		cfg.MaxHeads = 1 << 14
	}
	if cfg.HeadWindow < 0 || cfg.MaxChildren < 0 || cfg.MaxHeads < 0 {
		return nil, fmt.Errorf("head window and limits must not be negative")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Rule{
		agents:   agents,
		actors:   actors,
		children: children{half: max(cfg.MaxChildren/2, 1)},
		heads:    newHeads(cfg.HeadWindow, max(cfg.MaxHeads/2, 1), cfg.Now),
	}, nil
}

// Class gives the class, the tag to count it for, and those of the children
// that are worth keeping because they were not known, or had nearly been
// forgotten.
//
// The first that fits wins: a PUT is a push; what the operator ignores is
// ignored; signatures, attestations and referrers tags are artifacts, by
// whatever method; a HEAD is a head; a GET by digest is a pull of the tag
// whose HEAD has just shown this digest to the same client, else a child if an
// index lists it, else a pull.
func (r *Rule) Class(q Request) (class Class, tag string, fresh []string) {
	class = r.apart(q)

	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range q.Children {
		if r.children.add(childKey(q.Repository, d)) {
			fresh = append(fresh, d)
		}
	}
	if class != "" {
		return class, q.Tag, fresh
	}
	if q.Method == http.MethodHead {
		if q.Tag != "" && q.Client != "" {
			r.heads.add(q)
		}
		return Head, q.Tag, fresh
	}
	if q.Tag != "" {
		return Pull, q.Tag, fresh
	}
	if q.Client != "" {
		if tag, ok := r.heads.tag(q); ok {
			return Pull, tag, fresh
		}
	}
	if r.children.has(childKey(q.Repository, q.Digest)) {
		return Child, "", fresh
	}
	return Pull, "", fresh
}

// apart gives the classes that need no memory.
func (r *Rule) apart(q Request) Class {
	switch {
	case q.Method == http.MethodPut:
		return Push
	case r.agents.match(q.UserAgent) || r.actors.match(q.Actor):
		return Ignored
	case q.Kind == "artifact" || referrersTag(q.Tag):
		return Artifact
	}
	return ""
}

// Learn makes children known by their keys: those that Counter.Children stored
// and those that other replicas found.
func (r *Rule) Learn(keys ...ChildKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range keys {
		r.children.add(k)
	}
}

// referrersTag tells the tags under which clients keep what refers to an image
// when a registry has no referrers API: sha256-<hex>, and with a suffix those
// of cosign. The OCI distribution spec cuts the encoded part at 64 characters.
func referrersTag(tag string) bool {
	rest, ok := strings.CutPrefix(tag, "sha256-")
	if !ok {
		rest, ok = strings.CutPrefix(tag, "sha512-")
	}
	if !ok || len(rest) < 64 {
		return false
	}
	for i := range 64 {
		if !isHex(rest[i]) {
			return false
		}
	}
	return true
}

func isHex(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' }
