package counter

import (
	"bytes"
	"encoding/binary"
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"github.com/tidings-dev/tidings/internal/store"
)

// A push is a retag if its digest has another tag. What is known of that is
// under two keys, of a digest and of a tag, and goes when the tag is deleted or
// pushed with another digest.

// recordPush notes a push in an indexed batch, and tells whether its digest has
// another tag.
func recordPush(b *pebble.Batch, fact *Fact, today int64) (bool, error) {
	own := pushedKey(fact.Repository, fact.Digest, fact.Tag)
	of := own[len(pushedPrefix) : len(own)-4]
	if err := deletePush(b, fact.Repository, fact.Tag, of); err != nil {
		return false, err
	}
	prefix := own[:len(own)-4]
	iter, err := b.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return false, err
	}
	other := iter.First() && (!bytes.Equal(iter.Key(), own) || iter.Next())
	if err := errors.Join(iter.Error(), iter.Close()); err != nil {
		return false, err
	}
	day := binary.AppendUvarint(nil, uint64(today))
	return other, errors.Join(b.Set(own, day, nil), b.Set(latestKey(fact.Repository, fact.Tag), append(day, of...), nil))
}

// deletePush forgets, in an indexed batch, with what a tag was pushed last,
// unless that is hashed as of. What a version wrote that did not note it stays.
func deletePush(b *pebble.Batch, repository, tag string, of []byte) error {
	key := latestKey(repository, tag)
	val, err := store.Read(b, key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	_, n := binary.Uvarint(val)
	if before := val[max(n, 0):]; len(before) == 8 && !bytes.Equal(before, of) {
		if err := b.Delete(pushedKeyOf(before, tag), nil); err != nil {
			return err
		}
	}
	return b.Delete(key, nil)
}
