package post

import (
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/tidings-dev/tidings/atproto/lexicon"
)

// Errors that come from the facts themselves: the same facts will fail again.
var (
	ErrNoName  = errors.New("a post needs a repository and a tag")
	ErrTooLong = errors.New("the text cannot be shortened to the limits of a post")
)

const maxLangs = 3

// Compose writes the post that announces f. It returns an app.bsky.feed.post
// in atdata's shape: map[string]any, []any, string and int64.
//
// langs are BCP 47 tags of the text, at most three, none is fine. createdAt is
// when the push happened, kept to the millisecond.
//
// Names that a registry accepts always fit; ErrTooLong is for names from
// elsewhere. Every error is permanent.
func Compose(f Facts, langs []string, createdAt time.Time) (map[string]any, error) {
	f = f.clean()
	if f.Repository == "" || len(f.Tags) == 0 {
		return nil, ErrNoName
	}
	for cut := range f.cuts() {
		b := f.write(cut)
		if err := b.Err(); err != nil {
			return nil, err
		}
		if b.Fits() {
			return b.Record(langs, createdAt)
		}
	}
	return nil, fmt.Errorf("%s:%s: %w", middle(f.Repository, 40), middle(f.Tags[0], 40), ErrTooLong)
}

// Record returns what was built as an app.bsky.feed.post.
func (b *Builder) Record(langs []string, createdAt time.Time) (map[string]any, error) {
	if b.err != nil {
		return nil, b.err
	}
	if !b.Fits() {
		return nil, ErrTooLong
	}
	created := lexicon.Datetime(createdAt)
	if _, err := syntax.ParseDatetime(created); err != nil {
		return nil, fmt.Errorf("time of the post: %w", err)
	}
	record := map[string]any{
		"$type":     "app.bsky.feed.post",
		"text":      b.text.String(),
		"createdAt": created,
	}
	if err := CheckLangs(langs); err != nil {
		return nil, err
	}
	if len(langs) > 0 {
		list := make([]any, len(langs))
		for i, lang := range langs {
			list[i] = lang
		}
		record["langs"] = list
	}
	if len(b.facets) > 0 {
		record["facets"] = b.facets
	}
	return record, nil
}

// CheckLangs says what is wrong with the languages of a post: BCP 47 tags, at most
// three.
func CheckLangs(langs []string) error {
	if len(langs) > maxLangs {
		return fmt.Errorf("%d languages, and a post may name %d", len(langs), maxLangs)
	}
	for _, lang := range langs {
		if lexicon.CheckFormat("language", lang) != nil {
			return fmt.Errorf(`%q is not a language; write it like "en" or "pt-BR"`, lang)
		}
	}
	return nil
}

// Encode returns a post as a repository stores it. An error means that its
// schema refuses it.
func Encode(record map[string]any) ([]byte, error) {
	encoded, err := lexicon.Encode(record)
	if err == nil {
		_, err = lexicon.Validate(lexicon.NSIDPost, encoded)
	}
	if err != nil {
		return nil, fmt.Errorf("encode post: %w", err)
	}
	return encoded, nil
}

// A cut says how much of the facts one attempt at the text shows.
type cut struct {
	tags      int  // other tags that are named
	platforms int  // platforms that are named
	pull      bool // whether there is a line with docker pull
	name      int  // graphemes of the repository's name
}

// The least and the most that shortening leaves of lists and names.
const (
	fewPlatforms = 3
	fewGraphemes = 3
)

// cuts yields what to try, longest text first. What goes, in this order:
// other tags, platforms beyond three, the line to pull, the middle of the
// name. What went stays gone.
func (f Facts) cuts() iter.Seq[cut] {
	return func(yield func(cut) bool) {
		c := cut{
			tags:      len(f.Tags) - 1,
			platforms: len(f.Platforms),
			pull:      f.Reference != "",
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
		for c.name = min(c.name-1, maxGraphemes); c.name >= fewGraphemes; c.name-- {
			if !yield(c) {
				return
			}
		}
	}
}
