package post

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	uax29 "github.com/clipperhouse/uax29/v2/graphemes"

	"github.com/tidings-dev/tidings/atproto/lexicon"
)

// Limits of app.bsky.feed.post.
const (
	maxGraphemes = 300
	maxBytes     = 3000
)

// A builder builds the text of a post from left to right and records which bytes are
// a link, a mention or a hashtag. It never searches the text for them, since the same words may occur twice.
// The zero builder is ready to use.
type builder struct {
	text   strings.Builder
	facets []facet
	more   bool  // the text goes on, but was not written
	err    error // the first error of a call
}

// A facet gives a part of the text, in bytes, a feature of app.bsky.richtext.facet.
type facet struct {
	start, end int
	feature    map[string]any
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
	b.facet(text, map[string]any{"$type": "app.bsky.richtext.facet#link", "uri": uri})
}

// mention writes the handle of an account and notifies the account of the post.
func (b *builder) mention(m Mention) {
	b.facet("@"+m.Handle, map[string]any{"$type": "app.bsky.richtext.facet#mention", "did": m.DID})
}

// hashtag writes a hashtag, which clients show as a search for it.
func (b *builder) hashtag(name string) {
	b.facet("#"+name, map[string]any{"$type": "app.bsky.richtext.facet#tag", "tag": name})
}

// facet writes text with a feature.
func (b *builder) facet(text string, feature map[string]any) {
	start := b.text.Len()
	b.plain(text)
	if b.text.Len() == start {
		return // a facet must not be empty
	}
	b.facets = append(b.facets, facet{start, b.text.Len(), feature})
}

// fits reports whether the text is within the limits of a post.
func (b *builder) fits() bool {
	text := b.text.String()
	return !b.more && len(text) <= maxBytes && lexicon.Graphemes(text) <= maxGraphemes
}

// ellipsis ends a text that was cut.
const ellipsis = "…"

// truncate cuts the text between two graphemes, so that it fits with an ellipsis. A facet
// that would be cut is dropped.
func (b *builder) truncate() {
	if b.fits() {
		return
	}
	end, all := 0, uax29.FromString(b.text.String())
	for n := 1; n < maxGraphemes && all.Next() && all.End() <= maxBytes-len(ellipsis); n++ {
		end = all.End()
	}
	kept := strings.TrimRightFunc(b.text.String()[:end], unicode.IsSpace)
	b.more = false
	b.text.Reset()
	b.text.WriteString(kept + ellipsis)
	b.facets = slices.DeleteFunc(b.facets, func(f facet) bool { return f.end > len(kept) })
}
