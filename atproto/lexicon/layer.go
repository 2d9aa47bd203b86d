package lexicon

import (
	"encoding/json"
	"strings"
)

// MaxLayerText limits the digest and the media type of a Layer, in bytes.
const MaxLayerText = 128

// Layer is an io.atcr.hold.layer record: one layer of one manifest of one
// owner. Its key is a TID. Times are RFC 3339 in UTC.
type Layer struct {
	Digest    string `json:"digest"` // "sha256:…", at most 128 bytes
	Size      int64  `json:"size"`   // bytes
	MediaType string `json:"mediaType"`
	Manifest  string `json:"manifest"` // "at://<owner>/io.atcr.manifest/<digest in hex>"
	UserDID   string `json:"userDid"`  // the image's owner
	CreatedAt string `json:"createdAt"`

	// Members of the older form, which has the repository instead of the manifest. They
	// are read, but not written.
	Repository string `json:"repository,omitempty"`
	UserHandle string `json:"userHandle,omitempty"`
}

// MarshalJSON adds the $type.
func (l Layer) MarshalJSON() ([]byte, error) {
	type members Layer
	return json.Marshal(struct {
		Type string `json:"$type"`
		members
	}{NSIDLayer, members(l)})
}

// ManifestURI returns the at:// URI of a manifest's record in its owner's repo. The
// record key is the digest without its algorithm.
func ManifestURI(owner, digest string) string {
	return "at://" + owner + "/io.atcr.manifest/" + digestHex(digest)
}

// ParseManifestURI is the inverse of ManifestURI. The URI lacks the digest's algorithm,
// which is inferred from its length.
func ParseManifestURI(uri string) (owner, digest string, ok bool) {
	rest, ok := strings.CutPrefix(uri, "at://")
	if !ok {
		return "", "", false
	}
	owner, text, ok := strings.Cut(rest, "/io.atcr.manifest/")
	algorithm := map[int]string{64: "sha256", 96: "sha384", 128: "sha512"}[len(text)]
	if !ok || owner == "" || algorithm == "" {
		return "", "", false
	}
	return owner, algorithm + ":" + text, true
}

func digestHex(digest string) string {
	for i := range len(digest) {
		if digest[i] == ':' {
			return digest[i+1:]
		}
	}
	return digest
}
