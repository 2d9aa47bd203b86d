package post

import "strings"

// originMember is a member of our posts that readers ignore. It names the image
// as "oss/app@sha256:…", which the text does not, so that what was announced can
// be found again from the account's posts alone.
const originMember = "tidingsImage"

// SetOrigin notes in a post which image it announces.
func SetOrigin(record map[string]any, repository, digest string) {
	record[originMember] = repository + "@" + digest
}

// Origin says which image a post announces; false: it is not one of ours, or of
// a version that did not note it.
func Origin(record map[string]any) (repository, digest string, ok bool) {
	image, _ := record[originMember].(string)
	return strings.Cut(image, "@")
}
