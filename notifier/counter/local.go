package counter

import (
	"context"
	"errors"
	"fmt"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/counts"
)

// The local counts are the base rows of all epochs and the pending rows.
var localPrefixes = []string{basePrefix, pendingPrefix}

// Repositories lists the repositories that this data folder has counts of.
func (c *Counter) Repositories(ctx context.Context) ([]counts.Totals, error) {
	snap := c.db.NewSnapshot()
	defer snap.Close()
	sums := map[string]counts.Row{}
	for _, prefix := range localPrefixes {
		if err := c.addTotals(ctx, snap, prefix, sums); err != nil {
			return nil, fmt.Errorf("list repositories: %w", err)
		}
	}
	return counts.ListTotals(sums), nil
}

func (c *Counter) addTotals(ctx context.Context, snap store.Snapshot, prefix string, sums map[string]counts.Row) error {
	iter, err := snap.NewIter(store.Range{Start: []byte(prefix), End: store.PrefixEnd([]byte(prefix))})
	if err != nil {
		return err
	}
	defer iter.Close()
	for ok := iter.First(); ok; {
		if err := ctx.Err(); err != nil {
			return err
		}
		id, _, err := parseRow(string(iter.Key()[len(prefix):]))
		if err != nil {
			return err
		}
		if id.Kind != counts.PerRepository {
			ok = iter.SeekGE(store.PrefixEnd(rowStart(prefix, id.Repository, 0)))
			continue
		}
		r, err := decodeRow(iter.Key(), iter.Value())
		if err != nil {
			return err
		}
		if r.Counted() {
			sums[id.Repository] = sums[id.Repository].Add(r, c.cfg.Now())
		}
		ok = iter.Next()
	}
	return iter.Error()
}

// Repository returns the counts of a repository in this data folder.
func (c *Counter) Repository(ctx context.Context, name string) (counts.Totals, map[string]map[counts.Class]int64, bool, error) {
	snap := c.db.NewSnapshot()
	defer snap.Close()
	var sum counts.Row
	found := false
	err := c.rows(ctx, snap, name, counts.PerRepository, func(_ counts.ID, r counts.Row) bool {
		sum = sum.Add(r, c.cfg.Now())
		found = found || r.Counted()
		return true
	})
	tags := map[string]counts.Row{}
	if err == nil {
		err = c.rows(ctx, snap, name, counts.PerTag, func(id counts.ID, r counts.Row) bool {
			t, known := tags[id.Name]
			if !r.Counted() || !known && len(tags) == counts.MaxTags {
				return len(tags) < counts.MaxTags
			}
			tags[id.Name] = t.Add(r, c.cfg.Now())
			return true
		})
	}
	if err != nil {
		return counts.Totals{}, nil, false, fmt.Errorf("read counts of %s: %w", name, err)
	}
	return sum.Totals(name), counts.ByTag(tags), found, nil
}

// Tags calls visit with the tags of a repository that are counted in this data folder, and
// their pushes, until it returns false. It may call visit several times for a tag, with
// pushes to be added up.
func (c *Counter) Tags(ctx context.Context, repository string, visit func(tag string, pushes int64) bool) error {
	snap := c.db.NewSnapshot()
	defer snap.Close()
	stopped := false
	err := c.rows(ctx, snap, repository, counts.PerTag, func(id counts.ID, r counts.Row) bool {
		stopped = stopped || !visit(id.Name, r.ByClass()[counts.Push])
		return !stopped
	})
	if err != nil {
		return fmt.Errorf("read tags of %s: %w", repository, err)
	}
	return nil
}

// Daily returns the counts of the last days in this data folder.
func (c *Counter) Daily(ctx context.Context, name string, days int) ([]counts.Day, error) {
	snap := c.db.NewSnapshot()
	defer snap.Close()
	byDate := map[string]counts.Row{}
	err := c.rows(ctx, snap, name, counts.PerDay, func(id counts.ID, r counts.Row) bool {
		if day, ok := counts.ParseDay(id.Name); ok {
			date := counts.DateOf(day)
			byDate[date] = byDate[date].Add(r, c.cfg.Now())
		}
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("read days of %s: %w", name, err)
	}
	list := counts.LastDays(c.cfg.Now(), days)
	for i := range list {
		list[i].Counts = byDate[list[i].Date].ByClass()
	}
	return list, nil
}

var errStop = errors.New("stop") // ends a scan early

// rows calls visit with a repository's local rows of a kind, until it returns false. visit
// may be called several times for an id, with counts to be added up.
func (c *Counter) rows(ctx context.Context, snap store.Snapshot, repository string, k counts.Kind, visit func(counts.ID, counts.Row) bool) error {
	for _, prefix := range localPrefixes {
		err := scanRows(snap, prefix, rowStart(prefix, repository, k), func(id counts.ID, _ string, r counts.Row) error {
			if !visit(id, r) {
				return errStop
			}
			return ctx.Err()
		})
		if err != nil && !errors.Is(err, errStop) {
			return err
		}
	}
	return nil
}
