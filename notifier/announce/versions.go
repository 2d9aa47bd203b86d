package announce

import (
	"strings"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/announce/posted"
	"github.com/tidings-dev/tidings/notifier/post"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/versions"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// putVersion adds an announced version to those that pages and feeds show, unless its post
// was given up. A version of a summary has no facts but its names.
func (s *Sink) putVersion(b *state.Batch, v *version, e posted.Entry, document string) error {
	if e.RKey == "" || len(e.Tags) == 0 {
		return nil
	}
	f := v.Facts
	if f.Total > 0 {
		f.Size = f.Total
	}
	return s.versions.Put(b, versions.Version{
		Repository: v.Repository, Name: e.Tags[0], Tags: e.Tags[1:], Digest: v.Digest, Time: time.UnixMicro(v.TID).UTC(),
		Size: f.Size, Images: f.Images, Layers: f.Layers, Platforms: f.Platforms, Post: e.RKey, Document: document,
	})
}

// Rebuilt is the version that a post of the account announces, with the facts that the
// post's record has; false if there is none.
func Rebuilt(r repo.Record, image post.Image) (versions.Version, bool) {
	key, err := syntax.ParseTID(r.RKey)
	if err != nil || image.Tag == "" {
		return versions.Version{}, false
	}
	return versions.Version{
		Repository: image.Repository, Name: image.Tag, Digest: image.Digest, Time: key.Time().UTC(), Post: r.RKey, Document: documentIn(r),
	}, true
}

// documentIn is the key of the document that a post names, "" if it names none.
func documentIn(r repo.Record) string {
	record, err := lexicon.Unmarshal(r.Value)
	if err != nil {
		return ""
	}
	for _, uri := range post.References(record) {
		if strings.HasSuffix(uri, "/"+lexicon.NSIDDocument+"/"+r.RKey) {
			return r.RKey
		}
	}
	return ""
}
