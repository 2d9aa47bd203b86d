package rediscounts

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/tidings-dev/tidings/notifier/counts"
)

// The sum over all registries is computed by the reader. Redis has the numbers of each
// registry id apart, as written by its owner, and a request reads those of every id
// whose record is not removed and adds them up. So no counter is ever incremented in
// Redis, and a registry that is restored or published again corrects the sum by
// itself.
//
// A read takes several commands and is not atomic. Numbers only grow, so a sum read
// during a round has some rows from before it and some from after. If Redis loses
// data during a read, the records before and after differ from what the publisher
// last wrote; Check compares them and fails the read, and the caller shows local
// numbers instead.

// Sum reads the numbers of all registries with the same name from Redis.
type Sum struct {
	Redis redis.UniversalClient
	Name  string // of the installation; empty: "default"
	// Check is called before and after numbers are read, with the records of all ids.
	// If it returns an error, the read fails with it. Nil: no check.
	Check func(ids map[string]string) error
	Now   func() time.Time // nil: time.Now
}

// pipelineSize is how many commands are sent in one pipeline.
const pipelineSize = 64

func (s *Sum) db() *DB { return New(s.Redis, s.Name) }

func (s *Sum) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

// ids lists the registry ids whose numbers count.
func (s *Sum) ids(ctx context.Context) ([]string, error) {
	records, err := s.db().Records(ctx)
	if err != nil {
		return nil, err
	}
	if s.Check != nil {
		if err := s.Check(records); err != nil {
			return nil, err
		}
	}
	var ids []string
	for id, raw := range records {
		if rec := ParseRecord(raw); rec != nil && !rec.Removed {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// read calls do with the ids and then checks that Redis has lost nothing in the
// meantime.
func (s *Sum) read(ctx context.Context, do func(ids []string) error) error {
	ids, err := s.ids(ctx)
	if err != nil {
		return err
	}
	if err := do(ids); err != nil || s.Check == nil {
		return err
	}
	_, err = s.ids(ctx)
	return err
}

// Repositories lists the repositories that any registry counted.
func (s *Sum) Repositories(ctx context.Context) ([]counts.Totals, error) {
	sums := map[string]counts.Row{}
	err := s.read(ctx, func(ids []string) error {
		for _, id := range ids {
			if err := s.db().scanTotals(ctx, id, func(name string, r counts.Row) {
				sums[name] = sums[name].Add(r, s.now())
			}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list repositories: %w", err)
	}
	list := make([]counts.Totals, 0, len(sums))
	for name, sum := range sums {
		if sum.Counted() {
			list = append(list, sum.Totals(name))
		}
	}
	slices.SortFunc(list, func(a, b counts.Totals) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// scanTotals calls visit once for each repository of an id.
func (d *DB) scanTotals(ctx context.Context, id string, visit func(name string, r counts.Row)) error {
	cursors := make(map[int]uint64, Shards)
	for i := range Shards {
		cursors[i] = 0
	}
	visited := map[string]bool{}
	for len(cursors) > 0 {
		var order []int
		cmds, err := d.client.Pipelined(ctx, func(p redis.Pipeliner) error {
			for shard, cursor := range cursors {
				order = append(order, shard)
				p.HScan(ctx, d.Keys.Shard(id, shard), cursor, "", 1000)
			}
			return nil
		})
		if err != nil {
			return err
		}
		for i, cmd := range cmds {
			pairs, next, err := cmd.(*redis.ScanCmd).Result()
			if err != nil {
				return err
			}
			for j := 0; j+1 < len(pairs); j += 2 {
				if name := pairs[j]; !visited[name] {
					visited[name] = true
					visit(name, counts.ParseText(pairs[j+1]))
				}
			}
			if cursors[order[i]] = next; next == 0 {
				delete(cursors, order[i])
			}
		}
	}
	return nil
}

// Repository returns the sum for one repository, with at most 10,000 tags: the newest
// ones.
func (s *Sum) Repository(ctx context.Context, name string) (counts.Totals, map[string]map[counts.Class]int64, bool, error) {
	var sum counts.Row
	tags := map[string]counts.Row{}
	err := s.read(ctx, func(ids []string) error {
		positions, err := s.totals(ctx, ids, name, &sum)
		if err != nil {
			return err
		}
		return s.tags(ctx, name, positions, tags)
	})
	if err != nil {
		return counts.Totals{}, nil, false, fmt.Errorf("read numbers of %s: %w", name, err)
	}
	if !sum.Counted() {
		return counts.Totals{}, nil, false, nil
	}
	byTag := make(map[string]map[counts.Class]int64, len(tags))
	for tag, r := range tags {
		byTag[tag] = r.ByClass()
	}
	return sum.Totals(name), byTag, true, nil
}

// totals adds up the totals of a repository, and returns the highest position that
// each id has given to a tag.
func (s *Sum) totals(ctx context.Context, ids []string, name string, sum *counts.Row) (map[string]uint64, error) {
	positions := map[string]uint64{}
	for chunk := range slices.Chunk(ids, pipelineSize) {
		cmds, err := s.Redis.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, id := range chunk {
				p.HGet(ctx, NewKeys(s.Name).Totals(id, name), name)
			}
			return nil
		})
		for i, cmd := range cmds {
			text, err := cmd.(*redis.StringCmd).Result()
			if errors.Is(err, redis.Nil) {
				continue
			}
			if err != nil {
				return nil, err
			}
			r := counts.ParseText(text)
			*sum = sum.Add(r, s.now())
			positions[chunk[i]] = r.Position
		}
		if len(cmds) != len(chunk) {
			return nil, err
		}
	}
	return positions, nil
}

// tags reads hashes of tags, those with the newest tags of all ids first, until there
// are enough. Positions are reused, so there are few more of them than tags.
func (s *Sum) tags(ctx context.Context, name string, positions map[string]uint64, tags map[string]counts.Row) error {
	keys := NewKeys(s.Name)
	for back := uint64(0); ; back++ {
		var hashes []string
		for id, n := range positions {
			if last := (n + TagsInHash - 1) / TagsInHash; back*maxHashes < last {
				for hash := last - back*maxHashes; hash > 0 && hash > last-min(last, (back+1)*maxHashes); hash-- {
					hashes = append(hashes, keys.Tags(id, name, hash-1))
				}
			}
		}
		if len(hashes) == 0 {
			return nil
		}
		for chunk := range slices.Chunk(hashes, pipelineSize) {
			if len(tags) >= counts.MaxTags {
				chunk = chunk[:0]
			}
			cmds, err := s.Redis.Pipelined(ctx, func(p redis.Pipeliner) error {
				for _, key := range chunk {
					p.HGetAll(ctx, key)
				}
				return nil
			})
			if err != nil {
				return err
			}
			for _, cmd := range cmds {
				for tag, text := range cmd.(*redis.MapStringStringCmd).Val() {
					r := counts.ParseText(text)
					if _, known := tags[tag]; r.Counted() && (known || len(tags) < counts.MaxTags) {
						tags[tag] = tags[tag].Add(r, s.now())
					}
				}
			}
		}
		if len(tags) >= counts.MaxTags {
			return nil
		}
	}
}

// maxHashes of one id are read before the next ones of all ids.
const maxHashes = counts.MaxTags / TagsInHash

// Daily returns the sum for each of the last days.
func (s *Sum) Daily(ctx context.Context, name string, days int) ([]counts.Day, error) {
	today := counts.DayOf(s.now())
	list := counts.LastDays(s.now(), days)
	sums := make([]counts.Row, len(list))
	fields := make([]string, len(list))
	for i := range list {
		fields[i] = counts.DayName(today + int64(i-len(list)+1))
	}
	err := s.read(ctx, func(ids []string) error {
		for chunk := range slices.Chunk(ids, pipelineSize) {
			cmds, err := s.Redis.Pipelined(ctx, func(p redis.Pipeliner) error {
				for _, id := range chunk {
					p.HMGet(ctx, NewKeys(s.Name).Days(id, name), fields...)
				}
				return nil
			})
			if err != nil {
				return err
			}
			for _, cmd := range cmds {
				for i, val := range cmd.(*redis.SliceCmd).Val() {
					if text, ok := val.(string); ok && i < len(sums) {
						sums[i] = sums[i].Add(counts.ParseText(text), s.now())
					}
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read days of %s: %w", name, err)
	}
	for i := range list {
		list[i].Counts = sums[i].ByClass()
	}
	return list, nil
}
