package notifier

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/state"
)

// That a digest was announced in a repository is remembered for good: about 35
// bytes each, and its tags.
//
//	a/p/<hash of repository and digest>   for each announcement a line: the post's record key, or "-" if it was
//	                                      given up, and the tags that it names
//
// Earlier versions wrote the record key alone, or nothing if it was given up.

const announcedPrefix = "a/p/"

func announcedKey(repository, digest string) []byte {
	h := sha256.Sum256([]byte(repository + "\x00" + digest))
	return append([]byte(announcedPrefix), h[:16]...)
}

// announced is what was announced of one digest in one repository, the oldest
// first.
type announced []announcedPost

type announcedPost struct {
	rkey string   // empty: it was given up
	tags []string // none in what an earlier version wrote
}

const givenUp = "-"

func (a announced) encode() []byte {
	lines := make([]string, len(a))
	for i, p := range a {
		rkey := p.rkey
		if rkey == "" {
			rkey = givenUp
		}
		lines[i] = strings.Join(append([]string{rkey}, p.tags...), " ")
	}
	return []byte(strings.Join(lines, "\n"))
}

func decodeAnnounced(val []byte) announced {
	var a announced
	for line := range strings.SplitSeq(string(val), "\n") {
		rkey, tags, _ := strings.Cut(line, " ")
		if rkey == givenUp {
			rkey = ""
		}
		a = append(a, announcedPost{rkey, strings.Fields(tags)})
	}
	return a
}

// has reports whether a post is among them.
func (a announced) has(rkey string) bool {
	return slices.ContainsFunc(a, func(p announcedPost) bool { return p.rkey == rkey })
}

// names reports whether one of them names a tag for which f is true.
func (a announced) names(f func(tag string) bool) bool {
	return slices.ContainsFunc(a, func(p announcedPost) bool { return slices.ContainsFunc(p.tags, f) })
}

// last is the record key of the newest post, empty if there is none.
func (a announced) last() string {
	for _, p := range slices.Backward(a) {
		if p.rkey != "" {
			return p.rkey
		}
	}
	return ""
}

// announced reads what was announced, nil if nothing was.
func (n *Notifier) announced(repository, digest string) (announced, error) {
	return readAnnounced(n.State.Get(announcedKey(repository, digest)))
}

// readAnnounced decodes what a Get of the store returned.
func readAnnounced(val []byte, err error) (announced, error) {
	if errors.Is(err, state.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read announcements: %w", err)
	}
	return decodeAnnounced(val), nil
}

// addAnnounced adds an announcement to those of the store and the batch, unless
// its post is there.
func (n *Notifier) addAnnounced(b *state.Batch, repository, digest string, p announcedPost) error {
	before, err := readAnnounced(b.Get(n.State, announcedKey(repository, digest)))
	if err != nil || p.rkey != "" && before.has(p.rkey) {
		return err
	}
	b.Set(announcedKey(repository, digest), append(before, p).encode())
	return nil
}

func (n *Notifier) postURI(rkey string) string {
	return "at://" + n.Account + "/" + lexicon.NSIDPost + "/" + rkey
}
