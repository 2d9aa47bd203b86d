package counter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"
)

// maxTags bounds what one look at a repository takes.
const maxTags = 10_000

// Repositories lists what was counted on this disk.
func (c *Counter) Repositories(ctx context.Context) ([]Totals, error) {
	iter, err := c.db.NewIter(&pebble.IterOptions{LowerBound: []byte(rowPrefix), UpperBound: after([]byte(rowPrefix))})
	if err != nil {
		return nil, fmt.Errorf("list repositories: %w", err)
	}
	defer iter.Close()
	var list []Totals
	for ok := iter.First(); ok; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		id, err := parseRow(string(iter.Key()[len(rowPrefix):]))
		if err != nil {
			return nil, fmt.Errorf("list repositories: %w", err)
		}
		var sum row
		ok, err = addRows(iter, rowStart(id.repository, totals), &sum)
		if err != nil {
			return nil, fmt.Errorf("list repositories: %w", err)
		}
		list = append(list, sum.totals(id.repository))
		if ok {
			ok = iter.SeekGE(after(rowStart(id.repository, 0)))
		}
	}
	if err := iter.Error(); err != nil {
		return nil, fmt.Errorf("list repositories: %w", err)
	}
	slices.SortFunc(list, func(a, b Totals) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// addRows adds up the rows from where iter is while their keys begin with
// prefix, and tells whether there is one behind them.
func addRows(iter *pebble.Iterator, prefix []byte, sum *row) (more bool, err error) {
	for ; iter.Valid() && strings.HasPrefix(string(iter.Key()), string(prefix)); iter.Next() {
		r, err := decodeRow(iter.Value())
		if err != nil {
			return false, fmt.Errorf("%w at %q", err, iter.Key())
		}
		sum.add(r)
	}
	return iter.Valid(), iter.Error()
}

// rowStart is how the keys of a repository's rows begin; kind 0 for all kinds.
func rowStart(repository string, k kind) []byte {
	b := []byte(rowPrefix + string(bucketOf(repository)) + repository + "\x00")
	if k != 0 {
		b = append(b, byte(k))
	}
	return b
}

// Repository gives the numbers that this disk has of one repository; of its
// tags, 10,000 at most.
func (c *Counter) Repository(ctx context.Context, name string) (Totals, map[string]map[Class]int64, bool, error) {
	var sum row
	found := false
	err := c.rows(ctx, rowStart(name, totals), func(_ rowID, r row) bool {
		sum.add(r)
		found = true
		return true
	})
	tags := map[string]row{}
	if err == nil {
		err = c.rows(ctx, rowStart(name, perTag), func(id rowID, r row) bool {
			t, known := tags[id.name]
			if !known && len(tags) == maxTags {
				return false
			}
			t.add(r)
			tags[id.name] = t
			return true
		})
	}
	if err != nil {
		return Totals{}, nil, false, fmt.Errorf("read numbers of %s: %w", name, err)
	}
	byTag := make(map[string]map[Class]int64, len(tags))
	for tag, r := range tags {
		byTag[tag] = r.byClass()
	}
	return sum.totals(name), byTag, found, nil
}

// Daily gives the numbers of the last days that this disk has.
func (c *Counter) Daily(ctx context.Context, name string, days int) ([]Day, error) {
	byDay := map[string]row{}
	err := c.rows(ctx, rowStart(name, perDay), func(id rowID, r row) bool {
		d := byDay[id.name]
		d.add(r)
		byDay[id.name] = d
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("read days of %s: %w", name, err)
	}
	list := lastDays(c.cfg.Now(), days)
	for i := range list {
		list[i].Counts = byDay[list[i].Date].byClass()
	}
	return list, nil
}

var errStop = errors.New("enough")

func (c *Counter) rows(ctx context.Context, prefix []byte, visit func(rowID, row) bool) error {
	err := scan(c.db, prefix, func(key, val []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		id, err := parseRow(string(key[len(rowPrefix):]))
		if err != nil {
			return err
		}
		r, err := decodeRow(val)
		if err != nil {
			return fmt.Errorf("%w at %q", err, key)
		}
		if !visit(id, r) {
			return errStop
		}
		return nil
	})
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}
