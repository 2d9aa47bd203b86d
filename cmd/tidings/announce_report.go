package main

import (
	"encoding/json"
	"strings"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/middleware"
	"github.com/tidings-dev/tidings/notifier/post"
)

// previewReport is what `announce preview` shows.
type previewReport struct {
	Image     string       `json:"image"`
	Digest    string       `json:"digest"`
	Sample    bool         `json:"sample,omitempty"` // no image of the registry
	Decision  string       `json:"decision"`         // posted, waiting, not announced; "" for a sample
	Reason    string       `json:"reason,omitempty"` // unless it would be posted
	Announced string       `json:"announced,omitempty"`
	Unchecked string       `json:"unchecked,omitempty"` // why it is not known whether it was announced before
	DryRun    bool         `json:"dryRun,omitempty"`
	Post      *previewPost `json:"post,omitempty"` // missing: there can be none

	card string // file that the picture was written to
}

// Decisions.
const (
	previewPosted  = "posted"
	previewWaiting = "waiting"
	previewRefused = "not announced"
)

type previewPost struct {
	Text         string          `json:"text"`
	Marked       string          `json:"marked"` // facets as [text](target)
	Graphemes    int             `json:"graphemes"`
	MaxGraphemes int             `json:"maxGraphemes"`
	Bytes        int             `json:"bytes"`
	MaxBytes     int             `json:"maxBytes"`
	Facets       []post.Facet    `json:"facets"`
	Link         string          `json:"link,omitempty"`
	Langs        []string        `json:"langs"`
	Picture      *previewPicture `json:"picture,omitempty"`
	Record       json.RawMessage `json:"record"`
}

type previewPicture struct {
	Link        string `json:"link,omitempty"` // "": it is an image
	Title       string `json:"title,omitempty"`
	Description string `json:"description,omitempty"`
	Alt         string `json:"alt,omitempty"`
	Bytes       int    `json:"bytes"`
}

func reportPreview(p middleware.Preview, sample bool, a *config.Announce) (previewReport, error) {
	r := previewReport{
		Image: p.Image.Repository + ":" + p.Image.Tag, Digest: p.Image.Digest, Sample: sample, Reason: p.Reason,
		Announced: p.PostURI, Unchecked: p.Unchecked, DryRun: a.DryRun,
	}
	if p.Image.Tag == "" {
		r.Image = p.Image.Repository + "@" + p.Image.Digest
	}
	switch {
	case sample:
	case p.Reason == "":
		r.Decision = previewPosted
	case p.Waiting:
		r.Decision = previewWaiting
	default:
		r.Decision = previewRefused
	}
	if p.Record == nil {
		return r, nil
	}
	var err error
	r.Post, err = reportPost(p)
	return r, err
}

func reportPost(p middleware.Preview) (*previewPost, error) {
	text := post.Text(p.Record)
	r := &previewPost{
		Text: text, Marked: post.Marked(p.Record), Facets: post.Facets(p.Record), Langs: []string{},
		Graphemes: post.Graphemes(text), MaxGraphemes: post.MaxGraphemes, Bytes: len(text), MaxBytes: post.MaxBytes,
	}
	langs, _ := p.Record["langs"].([]any)
	for _, lang := range langs {
		if s, ok := lang.(string); ok {
			r.Langs = append(r.Langs, s)
		}
	}
	for _, f := range r.Facets {
		if r.Link == "" {
			r.Link = f.Link
		}
	}
	r.Picture = reportPicture(p)
	encoded, err := post.Encode(p.Record)
	if err == nil {
		r.Record, err = lexicon.ToJSON(encoded)
	}
	return r, err
}

func reportPicture(p middleware.Preview) *previewPicture {
	embed, ok := p.Record["embed"].(map[string]any)
	if !ok {
		return nil
	}
	picture := &previewPicture{Bytes: len(p.Picture)}
	if external, ok := embed["external"].(map[string]any); ok {
		picture.Link, _ = external["uri"].(string)
		picture.Title, _ = external["title"].(string)
		picture.Description, _ = external["description"].(string)
	}
	if images, _ := embed["images"].([]any); len(images) > 0 {
		image, _ := images[0].(map[string]any)
		picture.Alt, _ = image["alt"].(string)
	}
	return picture
}

// sentence says what would happen.
func (r previewReport) sentence() string {
	switch r.Decision {
	case previewPosted:
		return "would be posted"
	case previewWaiting:
		return "would be posted later, " + r.Reason
	case previewRefused:
		text := r.Reason
		if !strings.HasPrefix(text, previewRefused) {
			text = previewRefused + ": " + text
		}
		if r.Announced != "" {
			text += ": " + r.Announced
		}
		return text
	}
	return "none; these are sample facts, so name an image of the registry to see whether it would be posted"
}
