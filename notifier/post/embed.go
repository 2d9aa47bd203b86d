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
	id, err := cid.Decode(p.CID)
	if err != nil {
		return errors.New("a picture without a CID")
	}
	blob := map[string]any{"$type": "blob", "ref": atdata.CIDLink(id), "mimeType": p.MediaType, "size": p.Size}
	if p.Link == "" {
		record["embed"] = map[string]any{"$type": "app.bsky.embed.images", "images": []any{map[string]any{
			"image": blob, "alt": p.Alt, "aspectRatio": map[string]any{"width": int64(card.Width), "height": int64(card.Height)},
		}}}
		return nil
	}
	uri, err := asciiLink(p.Link)
	if err != nil {
		return err
	}
	record["embed"] = map[string]any{"$type": "app.bsky.embed.external", "external": map[string]any{
		"uri": uri, "title": p.Title, "description": p.About, "thumb": blob,
	}}
	return nil
}

// RemovePicture removes the picture of a post.
func RemovePicture(record map[string]any) { delete(record, "embed") }
