package lexicon

import "encoding/json"

// Post is an app.bsky.feed.post record. Its key must be a TID.
type Post struct {
	Text      string    `json:"text"` // at most 300 graphemes and 3,000 bytes
	CreatedAt string    `json:"createdAt"`
	Langs     []string  `json:"langs,omitempty"` // at most 3
	Facets    []Facet   `json:"facets,omitempty"`
	Embed     *External `json:"embed,omitempty"`
	Tags      []string  `json:"tags,omitempty"`
}

// MarshalJSON adds the $type.
func (p Post) MarshalJSON() ([]byte, error) {
	type members Post
	return json.Marshal(struct {
		Type string `json:"$type"`
		members
	}{NSIDPost, members(p)})
}

// Facet gives a part of a post's text a meaning. Start and End count bytes of
// UTF-8, End exclusive. Exactly one of Link, Hashtag and Mention is set.
type Facet struct {
	Start, End int
	Link       string // a URL
	Hashtag    string // without the '#'
	Mention    string // a DID
}

// MarshalJSON gives the app.bsky.richtext.facet shape.
func (f Facet) MarshalJSON() ([]byte, error) {
	type feature struct {
		Type string `json:"$type"`
		URI  string `json:"uri,omitempty"`
		Tag  string `json:"tag,omitempty"`
		DID  string `json:"did,omitempty"`
	}
	var it feature
	switch {
	case f.Link != "":
		it = feature{Type: "app.bsky.richtext.facet#link", URI: f.Link}
	case f.Hashtag != "":
		it = feature{Type: "app.bsky.richtext.facet#tag", Tag: f.Hashtag}
	default:
		it = feature{Type: "app.bsky.richtext.facet#mention", DID: f.Mention}
	}
	type index struct {
		Start int `json:"byteStart"`
		End   int `json:"byteEnd"`
	}
	return json.Marshal(struct {
		Index    index     `json:"index"`
		Features []feature `json:"features"`
	}{index{f.Start, f.End}, []feature{it}})
}

// External is the card below a post (app.bsky.embed.external).
type External struct {
	URI, Title, Description string
}

// MarshalJSON gives the app.bsky.embed.external shape.
func (e External) MarshalJSON() ([]byte, error) {
	type external struct {
		URI         string `json:"uri"`
		Title       string `json:"title"`
		Description string `json:"description"`
	}
	return json.Marshal(struct {
		Type     string   `json:"$type"`
		External external `json:"external"`
	}{"app.bsky.embed.external", external{e.URI, e.Title, e.Description}})
}
