package post

import (
	"fmt"
	"strings"

	"github.com/tidings-dev/tidings/atproto/lexicon"
)

// Limits of app.bsky.feed.post.
const (
	maxGraphemes = 300
	maxBytes     = 3000
)

// A builder builds the text of a post from left to right and records which bytes are
// a link. It never searches the text for them, since the same words may occur twice.
// The zero builder is ready to use.
type builder struct {
	text   strings.Builder
	facets []any
	err    error // the first error of a call
}

// plain writes plain text. Invalid UTF-8 becomes U+FFFD. After more than maxBytes it
// writes nothing, since the text is too long already.
func (b *builder) plain(s string) {
	if b.text.Len() > maxBytes {
		return
	}
	b.text.WriteString(strings.ToValidUTF8(s, "\uFFFD"))
}

// link writes text that links to an http or https address.
func (b *builder) link(text, address string) {
	uri, err := asciiLink(address)
	if err != nil {
		if b.err == nil {
			b.err = fmt.Errorf("link %q: %w", address, err)
		}
		return
	}
	start := b.text.Len()
	b.plain(text)
	if b.text.Len() == start {
		return // a facet must not be empty
	}
	b.facets = append(b.facets, map[string]any{
		"index": map[string]any{
			"byteStart": int64(start),
			"byteEnd":   int64(b.text.Len()),
		},
		"features": []any{map[string]any{"$type": "app.bsky.richtext.facet#link", "uri": uri}},
	})
}

// fits reports whether the text is within the limits of a post.
func (b *builder) fits() bool {
	text := b.text.String()
	return len(text) <= maxBytes && lexicon.Graphemes(text) <= maxGraphemes
}
