package announce

import (
	"slices"

	"github.com/tidings-dev/tidings/notifier/purged"
	"github.com/tidings-dev/tidings/notifier/state"
)

// removedSince is the reason why a version whose last push has a sequence number is not
// announced any more, "" if it is: since then its repository was purged, or the data of its
// owner deleted. It is asked whenever a version is checked, so it does not matter whether the
// push is pending, its version waits, or its post is in the outbox. A preview has the number 0.
func (s *Sink) removedSince(repository string, seq uint64) (reason string, err error) {
	if seq == 0 {
		return "", nil
	}
	if purged, err := s.Purged.After(repository, seq); purged || err != nil {
		return reasonPurged, err
	}
	if owner := s.OwnerOf(repository); owner != "" {
		if forgotten, err := s.forgotten.Since(owner, seq); forgotten || err != nil {
			return reasonForgotten, err
		}
	}
	return "", nil
}

// CountWaiting returns how many versions of a repository wait to be announced, without those
// from before its last purge.
func CountWaiting(db state.Store, purges *purged.Store, repository string) (n int, err error) {
	last, err := purges.UpTo(repository)
	if err != nil {
		return 0, err
	}
	for _, g := range []groupID{groupOf(repository), summaryGroup} {
		versions, err := listWaiting(db, g)
		if err != nil {
			return 0, err
		}
		for _, v := range versions {
			if v.Repository == repository && slices.Max(v.Seqs) > last {
				n++
			}
		}
	}
	return n, nil
}
