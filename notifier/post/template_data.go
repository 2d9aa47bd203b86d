package post

import "time"

// templateData is what a template can use. Lists and names are shortened if the text is
// too long; the number of what is left out is in MoreTags and MorePlatforms.
type templateData struct {
	Repository string   // "oss/app", complete, for addresses
	Name       string   // the repository as the text shows it
	Tag        string   // the first tag
	Tags       []string // other tags of the image
	MoreTags   int
	Digest     string
	Size       string   // "45.2 MB", or "90.1 MB in 2 images", or "up to 45.2 MB" if only the largest is known; "": not known
	Layers     int      // 0: not known, or several images
	Images     int      // of an index
	Platforms  []string // "linux/amd64"

	MorePlatforms int
	Reference     string // argument of docker pull; "": omitted
	Link          string // announce.link for this image; "": none
	Time          string // of the push: "2026-01-02 15:04 UTC"
	First         bool   // the first version of the repository
	MoreVersions  int    // versions that this post stands for as well
	Owner         string // DID of the account to mention; "": none
	Handle        string // its handle
	Hashtags      []string
	Annotations   map[string]annotation
}

// An annotation is text that the client that pushes has chosen. It can't be part of a
// facet's target.
type annotation string

func newTemplateData(f Facts, c cut, at time.Time) templateData {
	d := templateData{
		Repository: f.Repository, Name: middle(f.Repository, c.name),
		Tag: f.Tags[0], Tags: f.Tags[1 : 1+c.tags], MoreTags: len(f.Tags) - 1 - c.tags,
		Digest: f.Digest, Size: f.size(), Layers: f.layers(), Images: max(f.Images, 1),
		Platforms: f.Platforms[:c.platforms], MorePlatforms: len(f.Platforms) - c.platforms,
		Link: line(f.Link), Time: at.UTC().Format("2006-01-02 15:04 UTC"), First: f.First, MoreVersions: max(f.MoreVersions, 0),
		Hashtags: f.Hashtags[:c.hashtags], Annotations: map[string]annotation{},
	}
	if c.pull {
		d.Reference = f.Reference
	}
	if c.mention {
		d.Owner, d.Handle = f.Mention.DID, f.Mention.Handle
	}
	for key, val := range f.Annotations {
		d.Annotations[key] = annotation(val)
	}
	return d
}
