// Package forgotten remembers which owners had their data deleted, so that what is found
// again later does not bring it back.
//
// An owner asks with io.atcr.hold.deleteUserData, which is an event like a push. Each sink
// deletes its part when it handles the event, so pushes before the event are deleted with
// it, and pushes after it are recorded as usual. What the rows are for:
//
//	state.Forgotten o/<owner>        sequence number of the last such event: a push before it
//	                                 that is repeated or announced later comes too late
//	state.Forgotten m/<image hash>   nothing: the records of this manifest of the owner were
//	                                 deleted, so a manifest that is found in storage has
//	                                 none until it is pushed again
//	state.Forgotten s/<owner>        a deletion of stats records that is not done yet
//	state.Forgotten c/<record key>   the counts of a repository at the deletion, which its
//	                                 next stats record leaves out
//
// The rows are written in the commits that delete, so after a crash they agree with what is
// deleted. The last two are for notifier/statsrecords.
package forgotten

import (
	"fmt"

	"github.com/tidings-dev/tidings/notifier/state"
)

// Prefixes of the keys.
const (
	owners    = state.Forgotten + "o/"
	manifests = state.Forgotten + "m/"

	pendingStats = state.Forgotten + "s/"

	// Counts is the prefix of the counts that notifier/statsrecords leaves out.
	Counts = state.Forgotten + "c/"
)

// A Store has the rows in the state of the notifier.
type Store struct{ db state.Store }

// New returns the rows in db.
func New(db state.Store) *Store { return &Store{db} }

// Put notes in b that the data of an owner is deleted by the event with a sequence number.
func (s *Store) Put(b *state.Batch, owner string, seq uint64) error {
	last, err := decode(b.Get(s.db, []byte(owners+owner)))
	if err != nil {
		return err
	}
	if seq > last {
		b.SetNumber([]byte(owners+owner), seq)
	}
	return nil
}

// Since reports whether the data of an owner was deleted by an event after the one with a
// sequence number.
func (s *Store) Since(owner string, seq uint64) (bool, error) {
	last, err := decode(s.db.Get([]byte(owners + owner)))
	return seq < last, err
}

func decode(val []byte, err error) (uint64, error) {
	last, err := state.Number(val, err)
	if err != nil {
		return 0, fmt.Errorf("read the owners whose data was deleted: %w", err)
	}
	return last, nil
}

// Mark notes in b that the records of a manifest of an owner are deleted.
func (s *Store) Mark(b *state.Batch, owner, digest string) { b.Set(markKey(owner, digest), nil) }

// Unmark removes in b what Mark has noted, if it has.
func (s *Store) Unmark(b *state.Batch, owner, digest string) error {
	marked, err := s.Marked(owner, digest)
	if marked {
		b.Delete(markKey(owner, digest))
	}
	return err
}

// Marked reports whether the records of a manifest of an owner were deleted and the manifest
// was not pushed since.
func (s *Store) Marked(owner, digest string) (bool, error) {
	marked, err := state.Has(s.db, markKey(owner, digest))
	if err != nil {
		return false, fmt.Errorf("read the manifests whose records were deleted: %w", err)
	}
	return marked, nil
}

func markKey(owner, digest string) []byte { return state.ImageKey(manifests, owner, digest) }
