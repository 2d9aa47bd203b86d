package post

import (
	"cmp"
	"slices"
	"strings"

	"github.com/tidings-dev/tidings/atproto/lexicon"
)

// A Facet is a part of a post's text, in bytes, with the one target that it has.
type Facet struct {
	Start   int    `json:"start"`
	End     int    `json:"end"`
	Text    string `json:"text"`
	Link    string `json:"link,omitempty"`    // address
	Mention string `json:"mention,omitempty"` // DID
	Hashtag string `json:"hashtag,omitempty"` // without "#"
}

// Target is what the facet leads to, as Marked shows it.
func (f Facet) Target() string {
	if f.Hashtag != "" {
		return "#" + f.Hashtag
	}
	return cmp.Or(f.Link, f.Mention)
}

// Text returns the text of a post.
func Text(record map[string]any) string {
	text, _ := record["text"].(string)
	return text
}

// Graphemes is the length of a text as the limit of a post counts it.
func Graphemes(text string) int { return lexicon.Graphemes(text) }

// Facets returns the facets of a post that Compose has written, in the order of the text.
func Facets(record map[string]any) []Facet {
	text := Text(record)
	list, _ := record["facets"].([]any)
	var facets []Facet
	for _, item := range list {
		fields, _ := item.(map[string]any)
		index, _ := fields["index"].(map[string]any)
		start, _ := index["byteStart"].(int64)
		end, _ := index["byteEnd"].(int64)
		features, _ := fields["features"].([]any)
		if start < 0 || end < start || end > int64(len(text)) || len(features) == 0 {
			continue
		}
		feature, _ := features[0].(map[string]any)
		f := Facet{Start: int(start), End: int(end), Text: text[start:end]}
		f.Link, _ = feature["uri"].(string)
		f.Mention, _ = feature["did"].(string)
		f.Hashtag, _ = feature["tag"].(string)
		facets = append(facets, f)
	}
	slices.SortFunc(facets, func(a, b Facet) int { return cmp.Compare(a.Start, b.Start) })
	return facets
}

// escaped marks the characters that mark facets, where they are part of the text.
var escaped = strings.NewReplacer(`\`, `\\`, `[`, `\[`, `]`, `\]`)

// Marked returns the text of a post with its facets as [text](target). Brackets and
// backslashes of the text have a backslash before them.
func Marked(record map[string]any) string {
	text := Text(record)
	var out strings.Builder
	end := 0
	for _, f := range Facets(record) {
		if f.Start < end {
			continue
		}
		out.WriteString(escaped.Replace(text[end:f.Start]) + "[" + escaped.Replace(f.Text) + "](" + f.Target() + ")")
		end = f.End
	}
	out.WriteString(escaped.Replace(text[end:]))
	return out.String()
}

// Limits of a text in graphemes and bytes.
const (
	MaxGraphemes = maxGraphemes
	MaxBytes     = maxBytes
)
