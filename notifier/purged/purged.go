// Package purged has the marks of repositories that were purged.
package purged

import (
	"fmt"

	"github.com/tidings-dev/tidings/notifier/state"
)

// Mark marks a repository as purged in b: its images have no records until it is pushed again,
// and its versions that were last pushed by an event up to last are not announced.
func Mark(b *state.Batch, repository string, last uint64) {
	b.SetNumber(state.PurgedKey(repository), last)
	b.SetNumber(unannouncedKey(repository), last)
}

func unannouncedKey(repository string) []byte { return []byte(state.Unannounced + repository) }

// Last is the highest event that any purge has noted.
func Last(db state.Store) (last uint64, err error) {
	err = db.Scan(state.Prefix(state.Unannounced), func(_, val []byte) error {
		seq, err := decodeLast(val, nil)
		last = max(last, seq)
		return err
	})
	return last, err
}

// UpTo is the event that the last purge of a repository has noted, 0 if there was none.
func UpTo(db state.Store, repository string) (uint64, error) {
	return decodeLast(db.Get(unannouncedKey(repository)))
}

func decodeLast(val []byte, err error) (uint64, error) {
	last, err := state.Number(val, err)
	if err != nil {
		return 0, fmt.Errorf("read the purges of repositories: %w", err)
	}
	return last, nil
}
