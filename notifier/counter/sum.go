package counter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Sum reads the numbers of all replicas from Redis.
type Sum struct {
	Redis redis.UniversalClient
	Now   func() time.Time // nil: time.Now
}

const listAtATime = 500

// Repositories lists what any replica counted.
func (s *Sum) Repositories(ctx context.Context) ([]Totals, error) {
	names, err := s.names(ctx)
	if err != nil {
		return nil, fmt.Errorf("list repositories: %w", err)
	}
	list := make([]Totals, 0, len(names))
	for chunk := range slices.Chunk(names, listAtATime) {
		if list, err = s.totals(ctx, list, chunk); err != nil {
			return nil, fmt.Errorf("list repositories: %w", err)
		}
	}
	return list, nil
}

func (s *Sum) names(ctx context.Context) ([]string, error) {
	cmds, err := s.Redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i := range buckets {
			p.SMembers(ctx, repositoriesKey(hexDigits[i]))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, cmd := range cmds {
		names = append(names, cmd.(*redis.StringSliceCmd).Val()...)
	}
	slices.Sort(names)
	return names, nil
}

// totals leaves out a repository whose key can't be read or is gone: the next
// round of publishing reports it, or brings it back.
func (s *Sum) totals(ctx context.Context, list []Totals, names []string) ([]Totals, error) {
	cmds, err := s.Redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, name := range names {
			p.HMGet(ctx, repositoryKey(name), totalFields...)
		}
		return nil
	})
	if err != nil && !redis.HasErrorPrefix(err, "WRONGTYPE") {
		return nil, err
	}
	for i, cmd := range cmds {
		if t, ok := parseTotals(names[i], cmd.(*redis.SliceCmd).Val()); ok {
			list = append(list, t)
		}
	}
	return list, nil
}

var totalFields = func() []string {
	fields := []string{lastPullField, lastPushField}
	for _, c := range Classes {
		fields = append(fields, totalField(c))
	}
	return fields
}()

func parseTotals(name string, vals []any) (Totals, bool) {
	if len(vals) != len(totalFields) {
		return Totals{}, false
	}
	t := Totals{
		Name:     name,
		LastPull: fromMillis(integer(vals[0])),
		LastPush: fromMillis(integer(vals[1])),
		Counts:   counts(vals[2:]),
	}
	return t, len(t.Counts) > 0
}

// counts takes one value per class.
func counts(vals []any) map[Class]int64 {
	m := make(map[Class]int64)
	for i, v := range vals {
		if n := integer(v); n > 0 {
			m[Classes[i]] = n
		}
	}
	return m
}

func integer(v any) int64 {
	s, _ := v.(string)
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// Repository gives the sum for one repository; of its tags, 10,000 at most.
func (s *Sum) Repository(ctx context.Context, name string) (Totals, map[string]map[Class]int64, bool, error) {
	vals, err := s.Redis.HMGet(ctx, repositoryKey(name), totalFields...).Result()
	if err != nil {
		return Totals{}, nil, false, fmt.Errorf("read numbers of %s: %w", name, err)
	}
	t, ok := parseTotals(name, vals)
	if !ok {
		return Totals{}, nil, false, nil
	}
	tags, err := s.tags(ctx, name)
	if err != nil {
		return Totals{}, nil, false, fmt.Errorf("read tags of %s: %w", name, err)
	}
	return t, tags, true, nil
}

func (s *Sum) tags(ctx context.Context, name string) (map[string]map[Class]int64, error) {
	tags := map[string]map[Class]int64{}
	for cursor := uint64(0); ; {
		pairs, next, err := s.Redis.HScan(ctx, repositoryKey(name), cursor, "tag/*", 1000).Result()
		if err != nil {
			return nil, err
		}
		for i := 0; i+1 < len(pairs); i += 2 {
			addTag(tags, pairs[i], pairs[i+1])
		}
		if cursor = next; cursor == 0 || len(tags) >= maxTags {
			return tags, nil
		}
	}
}

func addTag(tags map[string]map[Class]int64, field, val string) {
	tag, class, ok := strings.Cut(strings.TrimPrefix(field, "tag/"), "/")
	if !ok || Class(class).index() < 0 {
		return
	}
	n := integer(val)
	if n <= 0 {
		return
	}
	if tags[tag] == nil {
		if len(tags) >= maxTags {
			return
		}
		tags[tag] = map[Class]int64{}
	}
	tags[tag][Class(class)] = n
}

// Daily gives the sum for each of the last days.
func (s *Sum) Daily(ctx context.Context, name string, days int) ([]Day, error) {
	now := time.Now
	if s.Now != nil {
		now = s.Now
	}
	list := lastDays(now(), days)
	fields := make([]string, 0, len(list)*len(Classes))
	for _, day := range list {
		for _, c := range Classes {
			fields = append(fields, dayField(day.Date, c))
		}
	}
	vals, err := s.Redis.HMGet(ctx, repositoryKey(name), fields...).Result()
	if err != nil {
		return nil, fmt.Errorf("read days of %s: %w", name, err)
	}
	if len(vals) != len(fields) {
		return nil, fmt.Errorf("read days of %s: %w", name, errors.New("redis gave another number of fields"))
	}
	for i := range list {
		list[i].Counts = counts(vals[i*len(Classes) : (i+1)*len(Classes)])
	}
	return list, nil
}
