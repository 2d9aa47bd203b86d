package counter

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"
)

const (
	keysInEntry    = 256
	streamEntries  = 4096 // about, so that the stream stays under 10 MiB
	entriesAtATime = 64
)

// share tells other registries which children of indexes were found here and
// which tags were deleted, and learns theirs. The stream may be cut or lost:
// children that are missing are learned when an index is fetched, and of a tag
// whose end was missed, what another registry counted stays.
func (r *round) share() error {
	if err := r.tellChildren(); err != nil {
		return fmt.Errorf("share children of indexes: %w", err)
	}
	if err := r.tellTags(); err != nil {
		return fmt.Errorf("share the end of tags: %w", err)
	}
	if err := r.learnAll(); err != nil {
		return fmt.Errorf("learn from other registries: %w", err)
	}
	return nil
}

func (r *round) tellChildren() error {
	c := r.c
	c.mu.Lock()
	keys := c.children.unshared
	c.children.unshared = nil
	c.mu.Unlock()
	for len(keys) > 0 {
		n := min(len(keys), keysInEntry)
		var b []byte
		for _, k := range keys[:n] {
			b = binary.BigEndian.AppendUint64(b, uint64(k))
		}
		err := c.cfg.Redis.XAdd(r.ctx, &redis.XAddArgs{
			Stream: r.c.keys.children(), MaxLen: streamEntries, Approx: true, Values: []any{"from", c.run, "keys", b},
		}).Err()
		if err != nil {
			c.mu.Lock()
			room := max(maxUnshared-len(c.children.unshared), 0)
			c.children.unshared = append(c.children.unshared, keys[:min(room, len(keys))]...)
			c.mu.Unlock()
			return r.stream(err)
		}
		keys = keys[n:]
	}
	return nil
}

func (r *round) learnAll() error {
	for {
		streams, err := r.c.cfg.Redis.XRead(r.ctx, &redis.XReadArgs{
			Streams: []string{r.c.keys.children(), r.c.publisher.childrenAt}, Count: entriesAtATime, Block: -1,
		}).Result()
		if errors.Is(err, redis.Nil) {
			return nil
		}
		if err != nil {
			return r.stream(err)
		}
		n := 0
		for _, s := range streams {
			for _, m := range s.Messages {
				if err := r.learn(m); err != nil {
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

func (r *round) learn(m redis.XMessage) error {
	if m.Values["from"] == r.c.run {
		return nil
	}
	if tags, ok := m.Values["tags"].(string); ok {
		return r.c.learnTags(tags, m.ID)
	}
	packed, _ := m.Values["keys"].(string)
	var keys []ChildKey
	for b := []byte(packed); len(b) >= 8 && len(keys) < keysInEntry; b = b[8:] {
		keys = append(keys, ChildKey(binary.BigEndian.Uint64(b)))
	}
	if r.c.cfg.Learn != nil {
		r.c.cfg.Learn(keys...)
	}
	return nil
}

// stream turns the answer of a key that isn't a stream into one that the
// operator can act on.
func (r *round) stream(err error) error {
	if redis.HasErrorPrefix(err, "WRONGTYPE") {
		return &DamagedError{Key: r.c.keys.children(), Reason: "is not a stream"}
	}
	return err
}
