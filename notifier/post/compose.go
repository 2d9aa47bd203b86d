package post

import (
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/tidings-dev/tidings/atproto/lexicon"
)

// Permanent errors, caused by the facts.
var (
	ErrNoName  = errors.New("post without a repository or a tag")
	ErrTooLong = errors.New("text cannot be shortened to the limits of a post")
)

const maxLangs = 3

// Compose writes the post that announces f. It returns an app.bsky.feed.post
// as map[string]any, []any, string and int64.
//
// langs are the BCP 47 tags of the text, up to three. createdAt is the time of the
// push, with a precision of milliseconds.
//
// Names that a registry accepts always fit; ErrTooLong is returned for names from
// other sources. All errors are permanent.
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

// Record returns the post as an app.bsky.feed.post.
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

// CheckLangs returns an error unless langs are valid languages of a post: at most
// three BCP 47 tags.
func CheckLangs(langs []string) error {
	if len(langs) > maxLangs {
		return fmt.Errorf("%d languages, but a post may have at most %d", len(langs), maxLangs)
	}
	for _, lang := range langs {
		if lexicon.CheckFormat("language", lang) != nil {
			return fmt.Errorf(`%q is not a language; write it like "en" or "pt-BR"`, lang)
		}
	}
	return nil
}

// Encode returns a post in the encoding of a repo, or an error if it violates its
// schema.
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

// A cut says how many of the facts one version of the text includes.
type cut struct {
	tags      int  // other tags that are listed
	platforms int  // platforms that are listed
	pull      bool // whether there is a line with docker pull
	name      int  // graphemes of the repository's name
}

// The minimum that shortening leaves of lists and names.
const (
	fewPlatforms = 3
	fewGraphemes = 3
)

// cuts yields the cuts to try, longest text first. They omit, in this order: other
// tags, platforms after the third, the pull command, the middle of the name. Each
// cut also omits what the previous ones do.
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
