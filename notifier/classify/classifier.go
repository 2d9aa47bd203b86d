// Package classify decides the class of a manifest request: whether it is a pull, a
// child of an index, a check for updates, or something else.
//
// A Classifier decides from memory, before the request is answered. The class is stored
// in the event and not decided again. To recognize children and artifacts, a Classifier
// remembers index entries; a Store keeps them on disk. Package counter writes the Store
// and exchanges the entries with other registries.
package classify

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/internal/generations"
	"github.com/tidings-dev/tidings/notifier/counts"
)

// Bounds of Config.HeadWindow.
const (
	DefaultHeadWindow = 10 * time.Second
	maxHeadWindow     = 10 * time.Minute
)

// ValidateHeadWindow returns an error if a Config.HeadWindow is out of range.
func ValidateHeadWindow(d time.Duration) error {
	if d <= 0 || d > maxHeadWindow {
		return fmt.Errorf("%s is out of range; it must be more than 0 and at most 10m, since clients are remembered that long", d)
	}
	return nil
}

// Config configures a Classifier.
type Config struct {
	// Requests whose user agent or actor matches are counted as Ignored. In a
	// pattern, * stands for any number of characters and ? for one. The case of user
	// agents is ignored.
	IgnoreUserAgents []string
	IgnoreActors     []string

	HeadWindow  time.Duration // how long after a HEAD or a push a GET is matched with it; 0: DefaultHeadWindow
	MaxChildren int           // indexes and children in memory, 25 to 60 bytes each; 0: 1<<20
	MaxHeads    int           // HEADs in memory, and as many pushes, about 100 bytes each; 0: 1<<14

	Now func() time.Time // nil: time.Now
}

// Request is a manifest request that is about to be answered with success.
type Request struct {
	Method     string // GET, HEAD or PUT
	Repository string
	Tag        string   // empty if requested by digest
	Digest     string   // of the manifest in the response
	Kind       string   // image, index or artifact
	Children   []string // digests that an index lists
	Client     string   // address with or without port; only a seeded hash of it is kept, in memory
	UserAgent  string
	Actor      string
}

// Classifier decides the class of a request. It is called before the first byte of a
// response is sent, so it parses nothing and does no I/O. Its memory is bounded. It is safe
// for concurrent use.
//
// Children known to one registry reach the others through Redis within a round. A GET
// by digest is matched with a HEAD by tag only if both reach the same registry.
type Classifier struct {
	agents, actors patterns

	mu        sync.Mutex
	children  children
	artifacts generations.Map[ManifestKey, struct{}]
	heads     recentRequests // the tag of a client's last HEAD, by digest
	pushed    recentRequests // digests that a client has pushed
}

// New returns an error if a pattern or a limit is invalid.
func New(cfg Config) (*Classifier, error) {
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
		return nil, errors.New("MaxChildren and MaxHeads must not be negative")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Classifier{
		agents:    agents,
		actors:    actors,
		children:  children{half: max(cfg.MaxChildren/2, 1)},
		artifacts: generations.New[ManifestKey, struct{}](cfg.MaxChildren / 8),
		heads:     newRecentRequests(cfg.HeadWindow, cfg.MaxHeads, cfg.Now),
		pushed:    newRecentRequests(cfg.HeadWindow, cfg.MaxHeads, cfg.Now),
	}, nil
}

// Class returns the class of a request and the tag that it is counted for. fresh are the
// children of an index that was unknown or only in the older generation; the caller adds
// them to the event.
//
// The first rule that applies decides:
//
//  1. A PUT is a push.
//  2. A request of an ignored user agent or actor is ignored.
//  3. A request for an artifact, or for a manifest that was read under a referrers tag, is
//     an artifact.
//  4. A HEAD is a head.
//  5. A GET by tag is a pull of the tag.
//  6. A GET by digest is a pull of the tag of the same client's last HEAD with this
//     digest, unless the client has since got an index that lists the digest.
//  7. A GET by digest is ignored if the same client has pushed the digest.
//  8. A GET by digest is a child if an index lists it.
//  9. Otherwise it is a pull without a tag.
//
// Rules 6 and 7 apply within Config.HeadWindow.
func (r *Classifier) Class(q Request) (class counts.Class, tag string, fresh []string) {
	class = r.fixedClass(q)
	k := KeyOf(q.Repository, q.Digest)
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
		class = counts.Artifact
	}
	switch {
	case class == counts.Push:
		r.notePush(q)
		return class, q.Tag, fresh
	case class != "":
		return class, q.Tag, fresh
	case q.Method == http.MethodHead:
		if q.Tag != "" && q.Client != "" {
			r.heads.add(q.headKey(q.Digest), q.Tag)
		}
		return counts.Head, q.Tag, fresh
	}
	class, tag = counts.Pull, q.Tag
	if tag == "" {
		class, tag = r.classByDigest(q, k)
	}
	r.noteIndex(q)
	return class, tag, fresh
}

// classByDigest returns the class of a GET by digest.
func (r *Classifier) classByDigest(q Request, k ManifestKey) (counts.Class, string) {
	if q.Client != "" {
		if tag, ok := r.heads.tag(q.headKey(q.Digest)); ok {
			return counts.Pull, tag
		}
		if _, ok := r.pushed.tag(q.pushKey()); ok {
			return counts.Ignored, ""
		}
	}
	if r.children.has(k) {
		return counts.Child, ""
	}
	return counts.Pull, ""
}

// notePush remembers that a client has pushed a digest, which it may read back. An earlier
// HEAD of the digest checked whether the push is needed, and belongs to no pull.
func (r *Classifier) notePush(q Request) {
	if q.Client != "" {
		r.pushed.add(q.pushKey(), "")
		r.heads.remove(q.headKey(q.Digest))
	}
}

// maxNotedChildren bounds the children of an index whose HEADs are removed.
const maxNotedChildren = 256

// noteIndex removes the client's HEADs of an index's children: the client gets the
// children next because the index lists them.
func (r *Classifier) noteIndex(q Request) {
	if q.Client == "" || r.heads.empty() {
		return
	}
	for _, child := range q.Children[:min(len(q.Children), maxNotedChildren)] {
		r.heads.remove(q.headKey(child))
	}
}

// isArtifact reports whether the request is for an artifact that refers to another image.
// Such a manifest is known since its push or, for a GET by digest, since it was read under
// a referrers tag.
func (r *Classifier) isArtifact(q Request, k ManifestKey) bool {
	return q.Kind == "artifact" || r.knownArtifact(k.supporting()) || q.Tag == "" && r.knownArtifact(k.referring())
}

func (r *Classifier) knownArtifact(k ManifestKey) bool {
	_, ok := r.artifacts.Get(k)
	return ok
}

func (q *Request) headKey(digest string) requestKey {
	return requestKey{client: host(q.Client), repository: q.Repository, digest: digest}
}

func (q *Request) pushKey() requestKey {
	return requestKey{host(q.Client), q.UserAgent, q.Repository, q.Digest}
}

// fixedClass returns the class if it depends on nothing in memory.
func (r *Classifier) fixedClass(q Request) counts.Class {
	switch {
	case q.Method == http.MethodPut:
		return counts.Push
	case r.agents.match(q.UserAgent) || r.actors.match(q.Actor):
		return counts.Ignored
	}
	return ""
}

// Learn adds entries: after a start those of a Store, later those that were added to it or
// received from another registry.
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

// LearnArtifact marks a manifest as an artifact that refers to another image. It is needed
// for manifests that only their artifactType marks as artifacts.
func (r *Classifier) LearnArtifact(repository, digest string) {
	r.Learn(IndexEntry{Index: artifacts, Child: KeyOf(repository, digest).supporting()})
}
