package announce

import (
	"context"
	"slices"
	"time"
)

// listTimeout limits how long the tags of a repository are listed.
const listTimeout = 5 * time.Second

// first reports whether an announcement is of the first version of its repository: no other tag
// that is announced was counted here or is in storage, and its own were pushed no more often
// than it says. Counts remember deleted tags for a while and are cheap to read; storage is
// asked only if they have no other version, which may have been pushed before Tidings was
// installed or through another registry. If it is not known, the version is not the
// first.
func (s *Sink) first(ctx context.Context, a *announcement) bool {
	if !a.Local || s.Storage == nil || s.Counted == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	earlier := false
	pushes := map[string]int64{} // of its own tags
	err := s.Counted(ctx, a.Repository, func(tag string, n int64) bool {
		if slices.Contains(a.Tags, tag) {
			pushes[tag] += n
			earlier = pushes[tag] > int64(len(a.Seqs))
		} else {
			earlier = s.Tag(tag)
		}
		return !earlier
	})
	if err != nil || earlier {
		return false
	}
	tags, err := s.Storage.Tags(ctx, a.Repository)
	return err == nil && !slices.ContainsFunc(tags, func(tag string) bool {
		return s.Tag(tag) && !slices.Contains(a.Tags, tag)
	})
}
