// Package ledger remembers, for each manifest of an owner, which keys its
// records were written under and what became of them, so that a repeated push,
// a second tag, two pushes at once, a delete and a push after it each end
// right. It decides; it writes no records itself.
//
// An entry goes from nothing to Claimed (its keys are fixed), to Written (the
// records are in the repository), to Deleted (a tombstone that outlives them).
// Changes are put into the caller's batch, so that an entry moves together with
// the cursor or the outgoing batch that moved it.
package ledger

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/tidings-dev/tidings/atproto/store"
)

// State says how far a manifest's records have come.
type State string

const (
	Unknown State = ""        // never seen
	Claimed State = "claimed" // its keys are fixed, its records may or may not be written
	Written State = "written" // its records are in the repository
	Deleted State = "deleted" // its records are gone; the entry is their tombstone
)

// An Entry is what is known of one manifest of one owner.
type Entry struct {
	State State `json:"state"`
	// First is the time (unix microseconds) in the first of the TIDs that the
	// records use; ClockID is in each of them.
	First   int64 `json:"first"`
	ClockID uint  `json:"clockId"`
	Records int   `json:"records"` // how many TIDs follow for records
	// Repositories are those the manifest was pushed to and not deleted from:
	// the records go with the last of them.
	Repositories []string `json:"repositories,omitempty"`
	// Deleted is the time of the deletion (unix microseconds). A push older
	// than it writes nothing.
	Deleted int64 `json:"deleted,omitempty"`
}

// A Ledger keeps entries in the notifier's store.
type Ledger struct{ db *store.Store }

// New returns the ledger that lives in db.
func New(db *store.Store) *Ledger { return &Ledger{db} }

// Get returns the entry of a manifest; one that is not known has state
// Unknown.
func (l *Ledger) Get(owner, digest string) (Entry, error) {
	val, closer, err := l.db.Get(key(owner, digest))
	if errors.Is(err, pebble.ErrNotFound) {
		return Entry{}, nil
	}
	if err != nil {
		return Entry{}, fmt.Errorf("read ledger: %w", err)
	}
	defer closer.Close()
	var e Entry
	if err := json.Unmarshal(val, &e); err != nil {
		return Entry{}, fmt.Errorf("read ledger of %s: %w", digest, err)
	}
	return e, nil
}

// Put adds the entry to the batch.
func (l *Ledger) Put(b *pebble.Batch, owner, digest string, e Entry) error {
	val, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("write ledger: %w", err)
	}
	return b.Set(key(owner, digest), val, nil)
}

func key(owner, digest string) []byte {
	return []byte("l/" + owner + "\x00" + digest)
}
