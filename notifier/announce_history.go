package notifier

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/state"
)

// postHistory remembers for good which digests were announced in which repository:
// about 35 bytes each, and the tags.
//
//	state.Announcements <image hash>   for each announcement a line: the post's record
//	                                   key, or "-" if it was given up, and the tags
//
// Earlier versions wrote the record key alone, or nothing if it was given up.
type postHistory struct {
	db      state.Store
	account string // DID
}

// A history lists what was announced of one digest in one repository, the oldest
// first.
type history []historyEntry

type historyEntry struct {
	rkey string   // "": it was given up
	tags []string // none if an earlier version wrote it
}

const noPost = "-"

func (h history) encode() []byte {
	lines := make([]string, len(h))
	for i, p := range h {
		rkey := p.rkey
		if rkey == "" {
			rkey = noPost
		}
		lines[i] = strings.Join(append([]string{rkey}, p.tags...), " ")
	}
	return []byte(strings.Join(lines, "\n"))
}

func decodeHistory(val []byte) history {
	var h history
	for line := range strings.SplitSeq(string(val), "\n") {
		rkey, tags, _ := strings.Cut(line, " ")
		if rkey == noPost {
			rkey = ""
		}
		h = append(h, historyEntry{rkey, strings.Fields(tags)})
	}
	return h
}

// has reports whether the history has a post.
func (h history) has(rkey string) bool {
	return slices.ContainsFunc(h, func(p historyEntry) bool { return p.rkey == rkey })
}

// names reports whether an announcement names a tag for which f is true.
func (h history) names(f func(tag string) bool) bool {
	return slices.ContainsFunc(h, func(p historyEntry) bool { return slices.ContainsFunc(p.tags, f) })
}

// last is the record key of the newest post, "" if there is none.
func (h history) last() string {
	for _, p := range slices.Backward(h) {
		if p.rkey != "" {
			return p.rkey
		}
	}
	return ""
}

func (p *postHistory) key(repository, digest string) []byte {
	return state.ImageKey(state.Announcements, repository, digest)
}

// get returns the history of a digest in a repository, nil if it was not announced.
func (p *postHistory) get(repository, digest string) (history, error) {
	return decodeStoredHistory(p.db.Get(p.key(repository, digest)))
}

func decodeStoredHistory(val []byte, err error) (history, error) {
	if errors.Is(err, state.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read announcements: %w", err)
	}
	return decodeHistory(val), nil
}

// add adds an announcement to the history as it is after b, unless its post is in it.
func (p *postHistory) add(b *state.Batch, repository, digest string, e historyEntry) error {
	key := p.key(repository, digest)
	before, err := decodeStoredHistory(b.Get(p.db, key))
	if err != nil || e.rkey != "" && before.has(e.rkey) {
		return err
	}
	b.Set(key, append(before, e).encode())
	return nil
}

func (p *postHistory) uri(rkey string) string {
	return "at://" + p.account + "/" + lexicon.NSIDPost + "/" + rkey
}

// Tags that are versions: numbers with or without a v; after a hyphen follows what
// makes it a pre-release (https://semver.org, 9).
var (
	releaseTag    = regexp.MustCompile(`^v?[0-9]+(\.[0-9]+)*$`)
	preReleaseTag = regexp.MustCompile(`^v?[0-9]+(\.[0-9]+)*-.`)
)

func isPreRelease(tag string) bool { return preReleaseTag.MatchString(tag) }

// isReleaseOf reports whether a tag is the release of a pre-release, as v1.0.0 is of
// v1.0.0-rc.1.
func isReleaseOf(tag, pre string) bool {
	return releaseTag.MatchString(tag) && isPreRelease(pre) &&
		strings.HasPrefix(strings.TrimPrefix(pre, "v"), strings.TrimPrefix(tag, "v")+"-")
}
