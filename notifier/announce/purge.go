package announce

import (
	"context"
	"slices"

	"github.com/tidings-dev/tidings/notifier/purged"
	"github.com/tidings-dev/tidings/notifier/state"
)

// How the pending posts of a purged repository are dropped
//
// A purge notes the last event of the journal in state.Unannounced. From then on a version of
// the repository whose last push is not after that event is not announced, whether its push is
// pending, it waits for a cooldown or a summary, or its post is in the outbox: it is looked up
// whenever a version is checked. A version that waits keeps its row until then. Such a
// version that is pushed again is announced, with all tags that it has in storage.

// wasPurged reports whether the repository of a version was purged after its last push. That
// of a preview has no event.
func wasPurged(db state.Store, v *version) (bool, error) {
	last, err := purged.UpTo(db, v.Repository)
	seq := slices.Max(v.Seqs)
	return err == nil && seq > 0 && seq <= last, err
}

// CountWaiting returns how many versions of a repository wait to be announced, without those
// that a purge has dropped.
func CountWaiting(db state.Store, repository string) (n int, err error) {
	for _, g := range []groupID{groupOf(repository), summaryGroup} {
		versions, err := listWaiting(db, g)
		if err != nil {
			return 0, err
		}
		for _, v := range versions {
			if v.Repository != repository {
				continue
			}
			dropped, err := wasPurged(db, &v)
			if err != nil {
				return 0, err
			}
			if !dropped {
				n++
			}
		}
	}
	return n, nil
}

// Settle returns when no post is being sent that was decided before the call. Such a post is
// then in the account and the history, or in the outbox, where it is checked again.
func (s *Sink) Settle(ctx context.Context) error {
	release, err := s.begin(ctx)
	if err != nil {
		return err
	}
	release()
	return nil
}
