package announce

import (
	"github.com/tidings-dev/tidings/notifier/announce/posted"
	"github.com/tidings-dev/tidings/notifier/state"
)

// notePost adds the rows of a post to b.
func (s *Sink) notePost(b *state.Batch, a *announcement) error {
	row := posted.Post{Versions: a.versions()}
	if !a.isSummary() {
		row.Repository, row.Digest, row.Tags = a.Repository, a.Digest, s.tagOrder(a.Tags)
	}
	for i, v := range a.Others {
		image := posted.Image{Repository: v.Repository, Digest: v.Digest}
		if len(v.Tags) > 0 {
			image.Name = s.tagOrder(v.Tags)[0]
		}
		if err := image.Set(b, a.Write.RKey, i); err != nil {
			return err
		}
	}
	return row.Set(b, a.Write.RKey)
}
