package forgotten

import (
	"encoding/json"
	"fmt"

	"github.com/tidings-dev/tidings/notifier/state"
)

// A PendingStats is a deletion of an owner's stats records that is not done yet.
type PendingStats struct {
	Owner string `json:"-"`
	Seq   uint64 `json:"seq"`             // of the event
	Noted bool   `json:"noted,omitempty"` // the rows with the prefix Counts are written
}

// PutPendingStats adds a deletion of stats records to b. It replaces that of an earlier
// event.
func (s *Store) PutPendingStats(b *state.Batch, p PendingStats) error {
	val, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode a deletion of stats records: %w", err)
	}
	b.Set([]byte(pendingStats+p.Owner), val)
	return nil
}

// EndPendingStats removes a deletion of stats records in b.
func (s *Store) EndPendingStats(b *state.Batch, owner string) {
	b.Delete([]byte(pendingStats + owner))
}

// FirstPendingStats returns a deletion of stats records; false if none is pending.
func (s *Store) FirstPendingStats() (p PendingStats, ok bool, err error) {
	err = s.db.Scan(state.Prefix(pendingStats), func(key, val []byte) error {
		if err := json.Unmarshal(val, &p); err != nil {
			return err
		}
		p.Owner, ok = string(key[len(pendingStats):]), true
		return state.ErrStop
	})
	if err != nil {
		err = fmt.Errorf("read the deletions of stats records: %w", err)
	}
	return p, ok, err
}
