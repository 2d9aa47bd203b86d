package counter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/counter/pushed"
	"github.com/tidings-dev/tidings/notifier/counts"
)

// The first version wrote these keys:
//
//	c/d/ROW                        the row is pending
//	c/g/REPOSITORY 0 DIGEST 0 TAG  a push: its day
//	c/id                           id of the store
//	c/n/ROW                        counts
//	c/p/BUCKET                     what Redis has of a bucket
//
//	ROW: BUCKET REPOSITORY 0 KIND NAME 0 JOURNAL
//
// migrate converts them and deletes them in the last batch, together with c/id. If it is
// interrupted before that, it starts again and first deletes what it has written.
var oldPrefixes = []string{"c/d/", "c/g/", "c/id", "c/n/", "c/p/"}

// migrate converts the counts of the first version, if there are any.
func (c *Counter) migrate() error {
	old, err := store.Has(c.db, []byte("c/id"))
	if err != nil || !old {
		return err
	}
	b := c.db.NewBatch()
	for _, prefix := range []string{basePrefix, pushed.Prefix, pushed.LatestPrefix} {
		if err := b.DeleteRange([]byte(prefix), store.PrefixEnd([]byte(prefix))); err != nil {
			return err
		}
	}
	n := 0
	set := func(key, val []byte) error {
		if err := b.Set(key, val); err != nil {
			return err
		}
		if n++; n%batchRows != 0 {
			return nil
		}
		defer func() { b = c.db.NewBatch() }()
		return c.db.Commit(b, store.NoSync)
	}
	if err := c.migrateRows(set); err != nil {
		return fmt.Errorf("migrate counts of an earlier version: %w", err)
	}
	if err := c.migratePushes(set); err != nil {
		return fmt.Errorf("migrate pushes of an earlier version: %w", err)
	}
	for _, prefix := range oldPrefixes {
		if err := b.DeleteRange([]byte(prefix), store.PrefixEnd([]byte(prefix))); err != nil {
			return err
		}
	}
	return c.db.Commit(b, store.Sync)
}

// migrateRows converts the rows. It adds up those of journals with different ids.
func (c *Counter) migrateRows(set func(key, val []byte) error) error {
	var id counts.ID
	var sum counts.Row
	flush := func() error {
		if !sum.Counted() {
			return nil
		}
		return set(baseKey(id, 1), sum.Encode())
	}
	err := store.Scan(c.db, []byte("c/n/"), func(key, val []byte) error {
		of, _, err := parseRow(string(key[min(len("c/n/")+1, len(key)):]))
		if err != nil {
			return err
		}
		if of.Kind == counts.PerDay {
			day, err := time.Parse(time.DateOnly, of.Name)
			if err != nil {
				return fmt.Errorf("damaged key %q", key)
			}
			of.Name = counts.DayName(counts.DayOf(day))
		}
		r, err := decodeOldRow(val)
		if err != nil {
			return fmt.Errorf("%w at %q", err, key)
		}
		if of != id {
			if err := flush(); err != nil {
				return err
			}
			id, sum = of, counts.Row{}
		}
		sum = sum.Add(r, c.cfg.Now())
		return nil
	})
	return errors.Join(err, flush())
}

func decodeOldRow(b []byte) (counts.Row, error) {
	var r counts.Row
	for _, t := range []*int64{&r.LastPull, &r.LastPush} {
		v, n := binary.Varint(b)
		if n <= 0 {
			return counts.Row{}, counts.ErrDamagedRow
		}
		*t, b = v, b[n:]
	}
	for i := 0; len(b) > 0; i++ {
		v, n := binary.Uvarint(b)
		if n <= 0 || i == len(r.Counts) {
			return counts.Row{}, counts.ErrDamagedRow
		}
		r.Counts[i], b = v, b[n:]
	}
	return r, nil
}

func (c *Counter) migratePushes(set func(key, val []byte) error) error {
	return store.Scan(c.db, []byte("c/g/"), func(key, val []byte) error {
		parts := strings.Split(string(key[len("c/g/"):]), "\x00")
		day, err := time.Parse(time.DateOnly, string(val))
		if err != nil || len(parts) != 3 {
			return fmt.Errorf("damaged key %q", key)
		}
		return set(pushed.Key(parts[0], parts[1], parts[2]), binary.AppendUvarint(nil, uint64(counts.DayOf(day))))
	})
}
