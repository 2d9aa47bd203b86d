package rediscounts

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tidings-dev/tidings/notifier/counts"
)

// The sum of all registries is computed by the reader. Redis has the counts of each registry
// id separately, as its owner wrote them. A request reads the counts of every id that was
// not removed and adds them up. No count is ever incremented in Redis, so the sum is right
// again as soon as a registry has written its counts again.
//
// A read takes several commands and is not atomic. Counts only grow, so a sum that is read
// while a registry writes has some of the old rows and some of the new ones. If Redis loses
// data during a read, the records before and after it are not those that were last
// written; Check detects that and the read fails.

// Sum reads the sum of the counts of all registries of an installation. It is a
// counts.Source.
type Sum struct {
	DB *DB
	// Check is called before and after counts are read, with the records of all ids.
	// If it returns an error, the read fails with it. Nil: no check.
	Check func(ids map[string]string) error
	Now   func() time.Time // nil: time.Now
}

// pipelineSize is the maximum number of commands in one pipeline.
const pipelineSize = 64

func (s *Sum) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

// ids lists the registry ids that are summed.
func (s *Sum) ids(ctx context.Context) ([]string, error) {
	records, err := s.DB.Records(ctx)
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

// read calls do with the ids, and then checks that Redis has lost nothing in the meantime.
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

// Repositories lists the repositories that any registry has counted, with the sum of their
// totals.
func (s *Sum) Repositories(ctx context.Context) ([]counts.Totals, error) {
	sums := map[string]counts.Row{}
	err := s.read(ctx, func(ids []string) error {
		for _, id := range ids {
			if err := s.DB.scanTotals(ctx, id, func(name string, r counts.Row) {
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
	return counts.ListTotals(sums), nil
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

// Repository returns the sum of a repository, with the newest counts.MaxTags tags.
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
		return counts.Totals{}, nil, false, fmt.Errorf("read counts of %s: %w", name, err)
	}
	if !sum.Counted() {
		return counts.Totals{}, nil, false, nil
	}
	return sum.Totals(name), counts.ByTag(tags), true, nil
}

// totals adds the totals of a repository to sum. It returns the highest position of a tag
// under each id.
func (s *Sum) totals(ctx context.Context, ids []string, name string, sum *counts.Row) (map[string]uint64, error) {
	positions := map[string]uint64{}
	for chunk := range slices.Chunk(ids, pipelineSize) {
		cmds, err := s.DB.client.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, id := range chunk {
				p.HGet(ctx, s.DB.Keys.Totals(id, name), name)
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

// tags reads the hashes of a repository's tags, starting with those of the highest
// positions, which have the newest tags, until it has counts.MaxTags tags. Positions are
// reused, so there are few more positions than tags.
func (s *Sum) tags(ctx context.Context, name string, positions map[string]uint64, tags map[string]counts.Row) error {
	for step := uint64(0); len(tags) < counts.MaxTags; step++ {
		hashes := s.hashes(name, positions, step)
		if len(hashes) == 0 {
			return nil
		}
		for chunk := range slices.Chunk(hashes, pipelineSize) {
			if err := s.readTags(ctx, chunk, tags); err != nil {
				return err
			}
			if len(tags) >= counts.MaxTags {
				return nil
			}
		}
	}
	return nil
}

// hashes returns the keys of the next maxHashes hashes of each id, from the highest
// position down.
func (s *Sum) hashes(name string, positions map[string]uint64, step uint64) []string {
	var hashes []string
	for id, position := range positions {
		n := (position + TagsInHash - 1) / TagsInHash
		for i := step * maxHashes; i < min(n, (step+1)*maxHashes); i++ {
			hashes = append(hashes, s.DB.Keys.Tags(id, name, n-1-i))
		}
	}
	return hashes
}

// readTags adds the rows in some hashes to tags.
func (s *Sum) readTags(ctx context.Context, hashes []string, tags map[string]counts.Row) error {
	cmds, err := s.DB.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, key := range hashes {
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
	return nil
}

// maxHashes is the number of hashes of one id that are read before older hashes of
// another.
const maxHashes = counts.MaxTags / TagsInHash

// Daily returns the sum of each of the last days.
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
			cmds, err := s.DB.client.Pipelined(ctx, func(p redis.Pipeliner) error {
				for _, id := range chunk {
					p.HMGet(ctx, s.DB.Keys.Days(id, name), fields...)
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
