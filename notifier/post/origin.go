package post

import "strings"

// originMember is a member of our posts that readers ignore. It names the image
// as "oss/app:v1.0.0@sha256:…", which the text does not, so that what was
// announced can be found again from the account's posts alone. Earlier versions
// left out the tag.
const originMember = "tidingsImage"

// Image is what a post announces.
type Image struct {
	Repository string
	Tag        string // the first that the post names; empty if an earlier version wrote it
	Digest     string // "sha256:…"
}

// SetOrigin notes in a post which image it announces.
func SetOrigin(record map[string]any, image Image) {
	record[originMember] = image.Repository + ":" + image.Tag + "@" + image.Digest
}

// Origin says which image a post announces; false: it is not one of ours, or of
// a version that did not note it.
func Origin(record map[string]any) (image Image, ok bool) {
	text, _ := record[originMember].(string)
	name, digest, ok := strings.Cut(text, "@")
	repository, tag, _ := strings.Cut(name, ":") // no repository of a registry has a colon
	return Image{repository, tag, digest}, ok
}
