package post

import (
	"fmt"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/tidings-dev/tidings/atproto/lexicon"
)

// Limits of app.bsky.feed.post and app.bsky.richtext.facet.
const (
	maxGraphemes    = 300
	maxBytes        = 3000
	maxTagGraphemes = 64
	maxTagBytes     = 640
)

// A Builder builds the text of a post from left to right and records which bytes
// are a link, a hashtag or a mention. It never searches the text for them, since
// the same words may occur twice. The zero Builder is ready to use.
type Builder struct {
	text   strings.Builder
	facets []any
	err    error
}

// Text writes plain text. Bytes that are not UTF-8 become U+FFFD.
func (b *Builder) Text(s string) {
	b.text.WriteString(strings.ToValidUTF8(s, "\uFFFD"))
}

// Link writes text that links to an http or https address.
func (b *Builder) Link(text, address string) {
	uri, err := asciiLink(address)
	if err != nil {
		b.fail(fmt.Errorf("link %q: %w", address, err))
		return
	}
	b.facet(text, map[string]any{"$type": "app.bsky.richtext.facet#link", "uri": uri})
}

// Tag writes a hashtag, "#" and the tag; tag may have a leading "#".
func (b *Builder) Tag(tag string) {
	tag = strings.ToValidUTF8(strings.TrimPrefix(tag, "#"), "\uFFFD")
	if tag == "" || len(tag) > maxTagBytes || lexicon.Graphemes(tag) > maxTagGraphemes {
		b.fail(fmt.Errorf("hashtag %q: want 1 to %d characters", tag, maxTagGraphemes))
		return
	}
	b.facet("#"+tag, map[string]any{"$type": "app.bsky.richtext.facet#tag", "tag": tag})
}

// Mention writes text, usually "@" and a handle, that notifies the account
// with this DID.
func (b *Builder) Mention(text, did string) {
	if _, err := syntax.ParseDID(did); err != nil {
		b.fail(fmt.Errorf("mention of %q: %w", did, err))
		return
	}
	b.facet(text, map[string]any{"$type": "app.bsky.richtext.facet#mention", "did": did})
}

// Err returns the first error of the previous calls.
func (b *Builder) Err() error { return b.err }

// Fits reports whether the text is within the limits of a post.
func (b *Builder) Fits() bool {
	text := b.text.String()
	return len(text) <= maxBytes && lexicon.Graphemes(text) <= maxGraphemes
}

func (b *Builder) facet(text string, feature map[string]any) {
	start := b.text.Len()
	b.Text(text)
	if b.text.Len() == start {
		return // a facet must not be empty
	}
	b.facets = append(b.facets, map[string]any{
		"index": map[string]any{
			"byteStart": int64(start),
			"byteEnd":   int64(b.text.Len()),
		},
		"features": []any{feature},
	})
}

func (b *Builder) fail(err error) {
	if b.err == nil {
		b.err = err
	}
}
