package publication

import (
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
)

// A Description is what the record of a publication says.
type Description struct {
	URL  string // of the pages, "https://registry.example.com/tidings"
	Name string
	Text string // "": none
	Icon *Icon  // nil: none
}

// Check returns an error if the description is not valid in a record.
func (d Description) Check() error {
	_, err := d.record(nil)
	return err
}

// record returns the record that replaces the one with the members before. Those that
// Tidings does not write, such as a theme, stay.
func (d Description) record(before map[string]any) ([]byte, error) {
	record := maps.Clone(before)
	if record == nil {
		record = map[string]any{}
	}
	delete(record, "description")
	delete(record, "icon")
	record["$type"], record["url"], record["name"] = lexicon.NSIDPublication, d.URL, d.Name
	if d.Text != "" {
		record["description"] = d.Text
	}
	if d.Icon != nil {
		record["icon"] = d.Icon.blob()
	}
	return encode(lexicon.NSIDPublication, record)
}

// A Document is the version of an image on its page.
type Document struct {
	Path        string // of the page, after the URL of the publication
	Title       string
	Description string
	Text        string
	Tags        []string
	Published   time.Time
}

// Record returns the record of the document in the publication with a URI.
func (d Document) Record(site string) ([]byte, error) {
	record := map[string]any{
		"$type": lexicon.NSIDDocument, "site": site, "path": d.Path, "title": shorten(d.Title, maxTitle), "publishedAt": lexicon.Datetime(d.Published),
	}
	if d.Description != "" {
		record["description"] = shorten(d.Description, maxDescription)
	}
	if d.Text != "" {
		record["textContent"] = d.Text
	}
	if len(d.Tags) > 0 {
		tags := make([]any, len(d.Tags))
		for i, tag := range d.Tags {
			tags[i] = tag
		}
		record["tags"] = tags
	}
	return encode(lexicon.NSIDDocument, record)
}

// WithCover returns the record of a document with another cover, a blob; nil: none.
func WithCover(document []byte, blob map[string]any) ([]byte, error) {
	record, err := lexicon.Unmarshal(document)
	if err != nil {
		return nil, err
	}
	delete(record, "coverImage")
	if blob != nil {
		record["coverImage"] = blob
	}
	return encode(lexicon.NSIDDocument, record)
}

func encode(collection string, record map[string]any) ([]byte, error) {
	encoded, err := lexicon.Encode(record)
	if err == nil {
		_, err = lexicon.Validate(collection, encoded)
	}
	if err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	return encoded, nil
}

// Limits of a document, in graphemes.
const (
	maxTitle       = 500
	maxDescription = 3000
)

// shorten cuts a text after a number of runes, which has no more graphemes.
func shorten(text string, most int) string {
	runes := []rune(text)
	if len(runes) <= most {
		return text
	}
	return strings.TrimSpace(string(runes[:most-1])) + "…"
}
