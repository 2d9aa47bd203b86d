package post

import (
	"errors"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/notifier/card"
)

// A Picture is a picture in a post, and what surrounds it there.
type Picture struct {
	CID       string `json:"cid,omitempty"` // of the blob; "": not known yet
	Size      int64  `json:"size,omitempty"`
	MediaType string `json:"mediaType,omitempty"`

	Link  string `json:"link,omitempty"`  // address behind the picture; "": none
	Title string `json:"title,omitempty"` // with a link
	About string `json:"about,omitempty"` // with a link
	Alt   string `json:"alt,omitempty"`   // without a link: what the picture shows
}

// Card returns what the card of an image shows, and the picture that it becomes. host is
// the registry's; "": not known.
func (f Facts) Card(host string) (card.Facts, Picture) {
	link := f.Link
	f = f.clean()
	host = line(host)
	tag := ""
	if len(f.Tags) > 0 {
		tag = f.Tags[0]
	}
	var about []string
	if size := f.size(); size != "" {
		about = append(about, size)
	}
	if n := f.layers(); n > 0 {
		about = append(about, count(n, "layer", "layers"))
	}
	if len(f.Platforms) > 0 {
		about = append(about, list(f.Platforms, min(len(f.Platforms), maxDescribed)))
	}
	drawn := card.Facts{
		Repository: f.Repository, Version: tag, Digest: f.Digest, Size: f.size(), Layers: f.layers(), LayerSizes: f.LayerSizes,
		Platforms: f.Platforms, Host: host,
	}
	p := Picture{Title: f.Repository + ":" + tag, About: strings.Join(about, ", "), Link: link}
	if p.About == "" {
		p.About = f.Digest
	}
	if link == "" {
		p = Picture{Alt: altText(p.Title, about, host, len(f.LayerSizes) > 1)}
	}
	return drawn, p
}

// maxDescribed is how many platforms a description lists.
const maxDescribed = 6

// altText says what a card shows.
func altText(name string, about []string, host string, bar bool) string {
	s := name
	if host != "" {
		s += " on " + host
	}
	if len(about) > 0 {
		s += ": " + strings.Join(about, ", ")
	}
	if bar {
		s += ". A bar shows the sizes of the layers."
	}
	return s
}

// SetPicture adds a picture to a post: with a link as the preview of the page that it
// leads to, otherwise as an image.
func SetPicture(record map[string]any, p Picture) error {
	blob, err := p.Blob()
	if err != nil {
		return err
	}
	if p.Link == "" {
		record["embed"] = map[string]any{"$type": "app.bsky.embed.images", "images": []any{map[string]any{
			"image": blob, "alt": p.Alt, "aspectRatio": map[string]any{"width": int64(card.Width), "height": int64(card.Height)},
		}}}
		return nil
	}
	if err := SetPreview(record, p); err != nil {
		return err
	}
	external(record)["thumb"] = blob
	return nil
}

// Blob is the picture as a blob in a record.
func (p Picture) Blob() (map[string]any, error) {
	id, err := cid.Decode(p.CID)
	if err != nil {
		return nil, errors.New("a picture without a CID")
	}
	return map[string]any{"$type": "blob", "ref": atdata.CIDLink(id), "mimeType": p.MediaType, "size": p.Size}, nil
}

// RemovePicture removes the picture of a post. A preview that refers to records stays.
func RemovePicture(record map[string]any) {
	preview := external(record)
	if preview == nil || preview["associatedRefs"] == nil {
		delete(record, "embed")
		return
	}
	delete(preview, "thumb")
}

// SetPreview adds the preview of a page without the picture to a post.
func SetPreview(record map[string]any, p Picture) error {
	uri, err := asciiLink(p.Link)
	if err != nil {
		return err
	}
	record["embed"] = map[string]any{"$type": "app.bsky.embed.external", "external": map[string]any{
		"uri": uri, "title": p.Title, "description": p.About,
	}}
	return nil
}

// external is the preview in a post; nil if it has none.
func external(record map[string]any) map[string]any {
	embed, _ := record["embed"].(map[string]any)
	preview, _ := embed["external"].(map[string]any)
	return preview
}

// A Ref identifies a version of a record.
type Ref struct {
	URI string `json:"uri"`
	CID string `json:"cid"`
}

// SetReferences sets the records that the page of a post's preview is about; none removes
// them.
func SetReferences(record map[string]any, refs ...Ref) {
	preview := external(record)
	if preview == nil {
		return
	}
	delete(preview, "associatedRefs")
	list := make([]any, len(refs))
	for i, r := range refs {
		list[i] = map[string]any{"uri": r.URI, "cid": r.CID}
	}
	if len(list) > 0 {
		preview["associatedRefs"] = list
	}
}

// References returns the URIs of the records that the page of a post's preview is about.
func References(record map[string]any) (uris []string) {
	list, _ := external(record)["associatedRefs"].([]any)
	for _, item := range list {
		ref, _ := item.(map[string]any)
		if uri, ok := ref["uri"].(string); ok {
			uris = append(uris, uri)
		}
	}
	return uris
}
