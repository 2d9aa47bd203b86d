package lastuse

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/internal/generations"
	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/counts"
)

// How the last use is tracked
//
// Changes adds the facts of one batch of events. Write adds the rows that have changed to
// the batch that moves the cursor of the journal: after a crash either both are on disk, or
// the events are read again, and a repeated use changes nothing. A time on disk is replaced
// by later ones only, so a last use never goes back. (The exception is a time in the future,
// recorded while the clock was ahead.)
//
// An event that deletes a tag or a manifest deletes its row. If a delete and a push at the
// same time are recorded in the wrong order, the row is missing until the next use or push.
//
// Since is the time from which on the uses are known. It is set when the first process
// opens the table, and again whenever events are lost: if a part of the journal is missing,
// after a backup was restored (Reset), or if another version, without this table, has
// counted events. To detect that, a row has the cursors up to which this table has events.

// Table is the rows under a prefix of a store.
type Table struct {
	prefix string
	recent generations.Map[rowKey, Use] // rows that were written recently
}

// maxRecent is the number of recent rows in memory, about 2 MB.
const maxRecent = 1 << 14

// New returns the table under a prefix. It does not read or write.
func New(prefix string) *Table {
	return &Table{prefix: prefix, recent: generations.New[rowKey, Use](maxRecent)}
}

// Forget drops what is in memory, after a commit that may have failed.
func (t *Table) Forget() {
	t.recent.Turn()
	t.recent.Turn()
}

func (t *Table) key(k rowKey) []byte { return append([]byte(t.prefix), k[:]...) }

// read returns a row; the zero Use if there is none.
func (t *Table) read(r store.Reader, k rowKey) (Use, error) {
	if u, ok := t.recent.Get(k); ok {
		return u, nil
	}
	val, closer, err := r.Get(t.key(k))
	if errors.Is(err, store.ErrNotFound) {
		return Use{}, nil
	}
	if err != nil {
		return Use{}, err
	}
	defer closer.Close()
	u, err := decode(val)
	if err != nil {
		return Use{}, fmt.Errorf("%w at %x", err, k)
	}
	return u, nil
}

// Repository calls visit with the rows of a repository, until it returns an error.
func (t *Table) Repository(r store.Reader, repository string, visit func(Key, Use) error) error {
	hash := hashRepository(repository)
	start := append([]byte(t.prefix), hash[:]...)
	return store.Scan(r, start, func(key, val []byte) error {
		u, err := decode(val)
		if rest := key[len(start):]; err != nil || len(rest) != len(Key{}) {
			return fmt.Errorf("%w at %x", ErrDamaged, key)
		}
		return visit(Key(key[len(start):]), u)
	})
}

// Changes are the changes of one batch of events.
type Changes struct {
	table  *Table
	from   store.Reader
	now    int64
	rows   map[rowKey]*change
	images map[image][2]*change // rows of a request: of its tag and its digest, nil if it has none
	hashes map[string][8]byte   // of repositories
}

// image is what a request names.
type image struct{ repository, tag, digest string }

type change struct {
	key     rowKey
	use     Use
	changed bool
	deleted int64 // hour in which it was deleted, and not pushed or used since; 0: it was not
}

// Changes begins a batch. from has the rows that are on disk.
func (t *Table) Changes(from store.Reader, now time.Time) *Changes {
	return &Changes{table: t, from: from, now: hourOf(now), rows: map[rowKey]*change{}, images: map[image][2]*change{}, hashes: map[string][8]byte{}}
}

// Add adds a fact.
func (c *Changes) Add(fact *counts.Fact) error {
	switch {
	case fact.Unlisted || !tracked(fact.Repository):
		return nil
	case fact.Deleted && fact.Tag != "":
		return c.delete(fact, OfTag(fact.Tag))
	case fact.Deleted:
		return c.delete(fact, OfDigest(fact.Digest))
	case fact.Time.IsZero() || fact.Class != counts.Push && !isUse(fact.Class):
		return nil
	}
	rows, err := c.of(image{fact.Repository, fact.Tag, fact.Digest})
	if err != nil {
		return err
	}
	for _, row := range rows {
		if row != nil {
			row.used(hourOf(fact.Time), c.now, fact.Class == counts.Push)
		}
	}
	return nil
}

func (row *change) used(hour, now int64, push bool) {
	t := &row.use.Used
	if push {
		t = &row.use.Pushed
	}
	if last := later(*t, hour, now); last != *t {
		*t, row.changed, row.deleted = last, true, 0
	}
}

// of returns the rows of a tag and a manifest.
func (c *Changes) of(i image) (rows [2]*change, err error) {
	rows, ok := c.images[i]
	if ok {
		return rows, nil
	}
	if i.tag != "" {
		rows[0], err = c.row(i.repository, OfTag(i.tag))
	}
	if err == nil && i.digest != "" {
		rows[1], err = c.row(i.repository, OfDigest(i.digest))
	}
	if err == nil {
		c.images[i] = rows
	}
	return rows, err
}

func (c *Changes) delete(fact *counts.Fact, k Key) error {
	row, err := c.row(fact.Repository, k)
	if err != nil {
		return err
	}
	row.use, row.changed, row.deleted = Use{}, true, c.now
	if !fact.Time.IsZero() {
		row.deleted = min(c.now, hourOf(fact.Time))
	}
	return nil
}

func (c *Changes) row(repository string, k Key) (*change, error) {
	hash, ok := c.hashes[repository]
	if !ok {
		hash = hashRepository(repository)
		c.hashes[repository] = hash
	}
	key := rowKeyOf(hash, k)
	if row, ok := c.rows[key]; ok {
		return row, nil
	}
	use, err := c.table.read(c.from, key)
	if err != nil {
		return nil, err
	}
	row := &change{key: key, use: use}
	c.rows[key] = row
	return row, nil
}

// Write adds the changed rows to a batch. If its commit fails, the caller calls Forget.
func (c *Changes) Write(b store.Batch) error {
	for _, row := range c.rows {
		if row.deleted != 0 {
			c.table.recent.Delete(row.key)
			if err := b.Delete(c.table.key(row.key)); err != nil {
				return err
			}
			continue
		}
		c.table.recent.Put(row.key, row.use, 1)
		if !row.changed {
			continue
		}
		if err := b.Set(c.table.key(row.key), row.use.encode()); err != nil {
			return err
		}
	}
	return nil
}

// Changed calls visit with each change of the batch.
func (c *Changes) Changed(visit func(Change)) {
	for _, row := range c.rows {
		if row.changed {
			visit(Change{ID(row.key), row.use, row.deleted})
		}
	}
}

// maxDropped is the number of rows that Drop deletes in one batch.
const maxDropped = 1000

// Drop deletes the rows of a repository for which old is true. mu is held while rows are
// written; what changes before that is read again.
func (t *Table) Drop(db *store.Store, mu sync.Locker, repository string, old func(Key, Use) bool) error {
	var found []ID
	flush := func() error {
		mu.Lock()
		defer mu.Unlock()
		b := db.NewBatch()
		for _, id := range found {
			u, err := t.read(db, rowKey(id))
			if err != nil {
				return err
			}
			if !old(id.Key(), u) {
				continue
			}
			t.recent.Delete(rowKey(id))
			if err := b.Delete(t.key(rowKey(id))); err != nil {
				return err
			}
		}
		found = found[:0]
		return db.Commit(b, store.NoSync)
	}
	err := t.Repository(db, repository, func(k Key, u Use) error {
		if !old(k, u) {
			return nil
		}
		if found = append(found, IDOf(repository, k)); len(found) < maxDropped {
			return nil
		}
		return flush()
	})
	return errors.Join(err, flush())
}

// All calls visit with all rows, until it returns an error.
func (t *Table) All(r store.Reader, visit func(ID, Use) error) error {
	return store.Scan(r, []byte(t.prefix), func(key, val []byte) error {
		u, err := decode(val)
		if rest := key[len(t.prefix):]; err != nil || len(rest) != len(ID{}) {
			return fmt.Errorf("%w at %x", ErrDamaged, key)
		}
		return visit(ID(key[len(t.prefix):]), u)
	})
}

// Has reports whether r has a row.
func (t *Table) Has(r store.Reader, id ID) (bool, error) { return store.Has(r, t.key(rowKey(id))) }
