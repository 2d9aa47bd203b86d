package counter

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// pruneAtATime bounds how long a fold waits for Prune.
const pruneAtATime = 1000

// Prune drops numbers by day, and what was kept to know a retag, when they are
// older than KeepDays. Totals and tags stay. Run calls it.
func (c *Counter) Prune() error {
	oldest := dayOf(c.cfg.Now().AddDate(0, 0, 1-KeepDays))
	err := c.drop([]byte(rowPrefix), func(key, _ []byte) bool {
		id, err := parseRow(string(key[len(rowPrefix):]))
		return err == nil && id.kind == perDay && id.name < oldest
	})
	if err != nil {
		return fmt.Errorf("drop old days: %w", err)
	}
	err = c.drop([]byte(pushedPrefix), func(_, day []byte) bool { return string(day) < oldest })
	if err != nil {
		return fmt.Errorf("drop old pushes: %w", err)
	}
	return nil
}

func (c *Counter) drop(prefix []byte, old func(key, val []byte) bool) error {
	var keys []string
	flush := func() error {
		defer func() { keys = keys[:0] }()
		return c.delete(keys)
	}
	err := scan(c.db, prefix, func(key, val []byte) error {
		if !old(key, val) {
			return nil
		}
		if keys = append(keys, string(key)); len(keys) < pruneAtATime {
			return nil
		}
		return flush()
	})
	if err != nil {
		return err
	}
	return flush()
}

func (c *Counter) delete(keys []string) error {
	if len(keys) == 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.db.NewBatch()
	for _, key := range keys {
		if err := b.Delete([]byte(key), nil); err != nil {
			return err
		}
		if len(key) > len(rowPrefix) && key[:len(rowPrefix)] == rowPrefix {
			if err := c.mark(b, key[len(rowPrefix):]); err != nil {
				return err
			}
		}
	}
	return c.db.Commit(b, pebble.NoSync)
}
