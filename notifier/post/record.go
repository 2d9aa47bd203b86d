package post

import (
	"fmt"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/tidings-dev/tidings/atproto/lexicon"
)

// record returns the post as an app.bsky.feed.post.
func (b *builder) record(langs []string, createdAt time.Time) (map[string]any, error) {
	if b.err != nil {
		return nil, b.err
	}
	if !b.fits() {
		return nil, errTooLong
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
		list := make([]any, len(b.facets))
		for i, f := range b.facets {
			list[i] = map[string]any{
				"index":    map[string]any{"byteStart": int64(f.start), "byteEnd": int64(f.end)},
				"features": []any{f.feature},
			}
		}
		record["facets"] = list
	}
	return record, nil
}

const maxLangs = 3

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

// originMember is an additional member of posts, which other clients ignore. It
// identifies the image as "oss/app:v1.0.0@sha256:…", so that the post history can be
// rebuilt from the account's posts alone. Earlier versions omitted the tag.
const originMember = "tidingsImage"

// Image identifies the image that a post announces.
type Image struct {
	Repository string
	Tag        string // the first that the post names; empty if an earlier version wrote it
	Digest     string // "sha256:…"
}

// SetOrigin stores in a post which image it announces.
func SetOrigin(record map[string]any, image Image) {
	record[originMember] = image.Repository + ":" + image.Tag + "@" + image.Digest
}

// Origin returns the image that a post announces. ok is false if the post is not
// from Tidings, or from a version that did not store the image.
func Origin(record map[string]any) (image Image, ok bool) {
	text, _ := record[originMember].(string)
	name, digest, ok := strings.Cut(text, "@")
	repository, tag, _ := strings.Cut(name, ":") // no repository of a registry has a colon
	return Image{repository, tag, digest}, ok
}
