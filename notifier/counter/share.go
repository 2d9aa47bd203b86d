package counter

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/redis/go-redis/v9"
	"github.com/tidings-dev/tidings/notifier/classify"
)

const (
	keysInEntry = 256
	// maxUnsent bounds the entries kept while Redis is unavailable. What does not fit is
	// learned by the other registries when they serve the index.
	maxUnsent      = 1 << 14
	streamEntries  = 4096 // approximately, so that the stream stays under 10 MiB
	entriesAtATime = 64
)

// Registries exchange what they learn about indexes and tags through one stream in
// Redis. The fields of an entry are
//
//	from  run of the process that added it, which ignores its own entries
//	keys  keys of children, 8 bytes each
//	of    keys of their indexes, in the same order
//	gone  keys of deleted manifests
//	tags  changes of tags (tagchange.go)
//
// An entry has keys and of, or gone, or tags; earlier versions only know from and
// keys. A process reads the stream from its beginning after each start; everything in
// it may be applied again.
//
// The stream may be cut or lost, and a crash loses what was not sent yet. Missing
// children are learned when their index is pulled. A manifest whose delete was missed
// stays known until its generation is dropped. For tags see tagchange.go.

// share sends what this registry has learned and receives what others have.
func (r *round) share() error {
	if err := r.sendChildren(); err != nil {
		return fmt.Errorf("share children of indexes: %w", err)
	}
	if err := r.sendTagChanges(); err != nil {
		return fmt.Errorf("share changes of tags: %w", err)
	}
	if err := r.receive(); err != nil {
		return fmt.Errorf("receive from other registries: %w", err)
	}
	return nil
}

// sendChildren adds entries for children of indexes and for deleted manifests.
func (r *round) sendChildren() error {
	c := r.c
	c.mu.Lock()
	all := c.unsentEntries
	c.unsentEntries = nil
	c.mu.Unlock()
	for len(all) > 0 {
		n := 1
		for n < min(len(all), keysInEntry) && all[n].Deleted == all[0].Deleted {
			n++
		}
		var indexes, children []byte
		for _, l := range all[:n] {
			indexes = binary.BigEndian.AppendUint64(indexes, uint64(l.Index))
			children = binary.BigEndian.AppendUint64(children, uint64(l.Child))
		}
		fields := []any{"keys", children, "of", indexes}
		if all[0].Deleted {
			fields = []any{"gone", indexes}
		}
		if err := r.addEntry(fields...); err != nil {
			c.mu.Lock()
			c.unsentEntries = append(all, c.unsentEntries...)
			c.unsentEntries = c.unsentEntries[:min(len(c.unsentEntries), maxUnsent)]
			c.mu.Unlock()
			return err
		}
		all = all[n:]
	}
	return nil
}

// addEntry adds an entry to the stream.
func (r *round) addEntry(fields ...any) error {
	err := r.c.cfg.Redis.XAdd(r.ctx, &redis.XAddArgs{
		Stream: r.c.keys.children(), MaxLen: streamEntries, Approx: true, Values: append([]any{"from", r.c.run}, fields...),
	}).Err()
	if err != nil {
		return r.streamError(err)
	}
	return nil
}

func (r *round) receive() error {
	for {
		streams, err := r.c.cfg.Redis.XRead(r.ctx, &redis.XReadArgs{
			Streams: []string{r.c.keys.children(), r.c.publisher.childrenAt}, Count: entriesAtATime, Block: -1,
		}).Result()
		if errors.Is(err, redis.Nil) {
			return nil
		}
		if err != nil {
			return r.streamError(err)
		}
		n := 0
		for _, s := range streams {
			for _, m := range s.Messages {
				if err := r.receiveEntry(m); err != nil {
					return err
				}
				r.c.publisher.childrenAt = m.ID
				n++
			}
		}
		if n < entriesAtATime {
			return nil
		}
	}
}

func (r *round) receiveEntry(m redis.XMessage) error {
	if m.Values["from"] == r.c.run {
		return nil
	}
	if tags, ok := m.Values["tags"].(string); ok {
		return r.c.applyTagChanges(tags, m.ID)
	}
	deleted := unpackKeys(m.Values["gone"])
	if err := r.c.deleteIndexes(deleted); err != nil {
		return err
	}
	if r.c.cfg.Learn == nil {
		return nil
	}
	var all []classify.IndexEntry
	for _, index := range deleted {
		all = append(all, classify.IndexEntry{Index: index, Deleted: true})
	}
	indexes := unpackKeys(m.Values["of"])
	for i, child := range unpackKeys(m.Values["keys"]) {
		l := classify.IndexEntry{Child: child}
		if i < len(indexes) {
			l.Index = indexes[i]
		}
		all = append(all, l)
	}
	r.c.cfg.Learn(all...)
	return nil
}

// unpackKeys decodes the keys in a field of an entry.
func unpackKeys(field any) []classify.ManifestKey {
	packed, _ := field.(string)
	var keys []classify.ManifestKey
	for b := []byte(packed); len(b) >= 8 && len(keys) < keysInEntry; b = b[8:] {
		keys = append(keys, classify.ManifestKey(binary.BigEndian.Uint64(b)))
	}
	return keys
}

// deleteIndexes removes what is stored of manifests that were deleted through another
// registry.
func (c *Counter) deleteIndexes(indexes []classify.ManifestKey) error {
	if len(indexes) == 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.db.NewBatch()
	for _, index := range indexes {
		if err := c.entries.Remove(b, index); err != nil {
			return err
		}
	}
	return c.db.Commit(b, pebble.NoSync)
}

// streamError turns Redis' error about a key of another type into one that the
// operator can act on.
func (r *round) streamError(err error) error {
	if redis.HasErrorPrefix(err, "WRONGTYPE") {
		return &damagedError{Key: r.c.keys.children(), Reason: "is not a stream"}
	}
	return err
}
