package post

import "strings"

// originMember is an additional member of our posts, which other clients ignore. It
// identifies the image as "oss/app:v1.0.0@sha256:…", so that the post history can be
// rebuilt from the account's posts alone. Earlier versions omitted the tag.
const originMember = "tidingsImage"

// Image identifies the image that a post announces.
type Image struct {
	Repository string
	Tag        string // the first that the post names; empty if an earlier version wrote it
	Digest     string // "sha256:…"
}

// SetOrigin stores in a post which image it announces.
func SetOrigin(record map[string]any, image Image) {
	record[originMember] = image.Repository + ":" + image.Tag + "@" + image.Digest
}

// Origin returns the image that a post announces. ok is false if the post is not
// from Tidings, or from a version that did not store the image.
func Origin(record map[string]any) (image Image, ok bool) {
	text, _ := record[originMember].(string)
	name, digest, ok := strings.Cut(text, "@")
	repository, tag, _ := strings.Cut(name, ":") // no repository of a registry has a colon
	return Image{repository, tag, digest}, ok
}
