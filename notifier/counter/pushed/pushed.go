// Package pushed has the rows that say which digests were pushed under which tags.
package pushed

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"sync"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/counts"
)

// A push is a retag if its digest has another tag in the same repository. Two keys record
// that:
//
//	pushed: hash of repository and digest, hash of tag -> day
//	latest: hash of repository and tag -> day, hash of repository and digest
//
// A push of a tag sets both. If the tag's latest key names another digest, the pushed key
// of that digest is deleted first, so a digest has a pushed key for each tag that refers to
// it now. A delete of the tag deletes both keys. All changes are part of the batch that
// moves the cursor: after a crash either the fact was folded and its keys are set, or the
// fact is folded again.
//
// The pushed keys also say which images exist, for pulls that anybody can report.
//
// Hashes are cut to 8 bytes, and to 4 for a tag of a digest. A collision counts a push as a
// retag by mistake, or fails to. Drop removes keys older than counts.KeepDays; a push of a
// digest whose other tags are older is then no retag.

// Prefixes of the keys.
const (
	Prefix       = "c/h/" // pushed
	LatestPrefix = "c/v/"
)

// Record records a push in an indexed batch. It reports whether the digest has another
// tag.
func Record(b store.Batch, fact *counts.Fact, today int64) (bool, error) {
	pushed := Key(fact.Repository, fact.Digest, fact.Tag)
	of := pushed[len(Prefix) : len(pushed)-4]
	if err := remove(b, fact.Repository, fact.Tag, of); err != nil {
		return false, err
	}
	prefix := pushed[:len(pushed)-4]
	iter, err := b.NewIter(store.Range{Start: prefix, End: store.PrefixEnd(prefix)})
	if err != nil {
		return false, err
	}
	other := iter.First() && (!bytes.Equal(iter.Key(), pushed) || iter.Next())
	if err := errors.Join(iter.Error(), iter.Close()); err != nil {
		return false, err
	}
	day := binary.AppendUvarint(nil, uint64(today))
	return other, errors.Join(b.Set(pushed, day), b.Set(latestKey(fact.Repository, fact.Tag), append(day, of...)))
}

// Delete deletes the keys of the last push of a tag in an indexed batch.
func Delete(b store.Batch, repository, tag string) error { return remove(b, repository, tag, nil) }

// remove deletes the keys of the last push of a tag in an indexed batch, except for a
// pushed key of the digest with the hash of. The pushed key of an earlier version, which
// had no latest keys, stays until Drop removes it.
func remove(b store.Batch, repository, tag string, of []byte) error {
	key := latestKey(repository, tag)
	val, err := store.Read(b, key)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	_, n := binary.Uvarint(val)
	if before := val[max(n, 0):]; len(before) == 8 && !bytes.Equal(before, of) {
		if err := b.Delete(keyOf(before, tag)); err != nil {
			return err
		}
	}
	return b.Delete(key)
}

// Refers reports whether the fact's tag refers to its digest, and whether any tag of the
// repository does.
func Refers(b store.Batch, fact *counts.Fact) (tagged, known bool, err error) {
	key := Key(fact.Repository, fact.Digest, fact.Tag)
	if tagged, err = store.Has(b, key); tagged || err != nil {
		return tagged, tagged, err
	}
	prefix := key[:len(key)-4]
	iter, err := b.NewIter(store.Range{Start: prefix, End: store.PrefixEnd(prefix)})
	if err != nil {
		return false, false, err
	}
	known = iter.First()
	return false, known, errors.Join(iter.Error(), iter.Close())
}

// Key has 8 bytes of a hash of repository and digest, and 4 of a hash of the tag.
func Key(repository, digest, tag string) []byte {
	of := sha256.Sum256([]byte(repository + "\x00" + digest))
	return keyOf(of[:8], tag)
}

// keyOf is Key with the hash of repository and digest.
func keyOf(of []byte, tag string) []byte {
	to := sha256.Sum256([]byte(tag))
	return append(append([]byte(Prefix), of...), to[:4]...)
}

func latestKey(repository, tag string) []byte {
	of := sha256.Sum256([]byte(repository + "\x00" + tag))
	return append([]byte(LatestPrefix), of[:8]...)
}

// maxDropped is the number of keys that Drop deletes in one batch.
const maxDropped = 1000

// Drop deletes the keys of pushes before a day. mu is held while they are deleted, and by those
// who call Record: a key that a push has set again since it was found is kept.
func Drop(db *store.Store, mu sync.Locker, oldest int64) error {
	old := func(val []byte) bool {
		day, n := binary.Uvarint(val)
		return n > 0 && int64(day) < oldest
	}
	var found [][]byte
	flush := func() error {
		mu.Lock()
		defer mu.Unlock()
		b := db.NewBatch()
		for _, key := range found {
			val, err := store.Read(db, key)
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				return err
			}
			if err == nil && old(val) {
				if err := b.Delete(key); err != nil {
					return err
				}
			}
		}
		found = found[:0]
		return db.Commit(b, store.NoSync)
	}
	for _, prefix := range []string{Prefix, LatestPrefix} {
		err := store.Scan(db, []byte(prefix), func(key, val []byte) error {
			if !old(val) {
				return nil
			}
			if found = append(found, bytes.Clone(key)); len(found) < maxDropped {
				return nil
			}
			return flush()
		})
		if err := errors.Join(err, flush()); err != nil {
			return err
		}
	}
	return nil
}
