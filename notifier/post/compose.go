// Package post writes the announcement of a push as an app.bsky.feed.post record
// (https://docs.bsky.app/docs/advanced-guides/posts).
//
// It is deterministic: the same facts give the same record. A PDS accepts each record
// and the app shows it in full: the text is within the limits of the lexicon in bytes
// and graphemes, and facets are on rune boundaries inside the text. The notifier
// decides which pushes are announced, when, and under which record key.
package post

import (
	"errors"
	"iter"
	"time"
)

// Permanent errors, caused by the facts.
var (
	errNoName  = errors.New("post without a repository or a tag")
	errTooLong = errors.New("text exceeds the limits of a post")
)

// Compose writes the post that announces f. It returns an app.bsky.feed.post
// as map[string]any, []any, string and int64.
//
// langs are the BCP 47 tags of the text, up to three. createdAt is the time of the
// push, with a precision of milliseconds.
//
// A text that is too long is shortened. Names that a registry accepts always fit; the end
// of a text with longer ones is cut. All errors are permanent.
func Compose(f Facts, langs []string, createdAt time.Time) (map[string]any, error) {
	f = f.clean()
	if err := f.check(); err != nil {
		return nil, err
	}
	var b *builder
	for cut := range f.cuts() {
		if b = f.write(cut); b.err != nil {
			return nil, b.err
		}
		if b.fits() {
			break
		}
	}
	b.truncate()
	return b.record(langs, createdAt)
}

// check returns an error if clean facts are not enough for a post.
func (f Facts) check() error {
	if f.Repository == "" || len(f.Tags) == 0 {
		return errNoName
	}
	return nil
}

// A cut is the number of facts in one version of the text.
type cut struct {
	tags      int  // other tags that are listed
	platforms int  // platforms that are listed
	pull      bool // whether there is a line with docker pull
	mention   bool // whether an account is mentioned
	hashtags  int  // hashtags that are listed
	name      int  // graphemes of the repository's name
}

// The minimum that shortening leaves of lists and names.
const (
	fewPlatforms = 3
	fewGraphemes = 3
)

// cuts yields the cuts to try, longest text first. They omit, in this order: other
// tags, platforms after the third, the pull command, hashtags from the last, the mention,
// the middle of the name. Each cut also omits what the previous ones omit.
func (f Facts) cuts() iter.Seq[cut] {
	return func(yield func(cut) bool) {
		c := cut{
			tags:      len(f.Tags) - 1,
			platforms: len(f.Platforms),
			pull:      f.Reference != "",
			mention:   f.Mention != Mention{},
			hashtags:  len(f.Hashtags),
			name:      graphemes(f.Repository),
		}
		for ; c.tags > 0; c.tags-- {
			if !yield(c) {
				return
			}
		}
		if !yield(c) {
			return
		}
		if c.platforms > fewPlatforms {
			c.platforms = fewPlatforms
			if !yield(c) {
				return
			}
		}
		if c.pull {
			c.pull = false
			if !yield(c) {
				return
			}
		}
		for c.hashtags > 0 {
			c.hashtags--
			if !yield(c) {
				return
			}
		}
		if c.mention {
			c.mention = false
			if !yield(c) {
				return
			}
		}
		for c.name = min(c.name-1, maxGraphemes); c.name >= fewGraphemes; c.name-- {
			if !yield(c) {
				return
			}
		}
	}
}
