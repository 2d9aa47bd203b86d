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

// Registry describes a registry id. It is in use by a registry, or was in use before the
// registry's data folder was copied or restored from an older copy.
type Registry struct {
	ID           string
	Host         string
	Seen         time.Time // when the registry last wrote, by its clock
	Kept         bool      // Forget was called, to keep the counts
	Removed      bool      // Forget was called, to remove the counts
	Repositories int
	Pulls        int64
	Pushes       int64
	LostUses     bool      // Forget has noted that last uses are lost
	UsesUpTo     time.Time // up to here they were sent; zero: none were

	raw     string
	stopped bool // the registry released the id when it stopped
}

// ErrRunning means that a registry uses the id.
var ErrRunning = errors.New("registry id is in use")

// ErrUnknownID means that Redis has no such registry id.
var ErrUnknownID = errors.New("unknown registry id")

// List returns the registry ids of the installation, most recently seen first.
func (d *DB) List(ctx context.Context) ([]Registry, error) {
	records, err := d.Records(ctx)
	if err != nil {
		return nil, fmt.Errorf("list registry ids: %w", err)
	}
	var list []Registry
	for id, raw := range records {
		k := newRegistry(id, raw)
		if err := k.count(ctx, d); err != nil {
			return nil, fmt.Errorf("read the counts of %s: %w", id, err)
		}
		list = append(list, k)
	}
	slices.SortFunc(list, func(a, b Registry) int {
		if c := b.Seen.Compare(a.Seen); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return list, nil
}

// recordOrEmpty parses a record. For an empty value it returns a record without an owner.
func recordOrEmpty(raw string) *Record {
	if rec := ParseRecord(raw); rec != nil {
		return rec
	}
	return &Record{}
}

func newRegistry(id, raw string) Registry {
	rec := recordOrEmpty(raw)
	return Registry{
		ID: id, Host: rec.Host, Seen: time.Unix(rec.Seen, 0).UTC(), Kept: rec.Kept, Removed: rec.Removed,
		raw: raw, stopped: rec.Owner == "" || rec.Instance == "",
	}
}

func (k *Registry) count(ctx context.Context, d *DB) error {
	return d.scanTotals(ctx, k.ID, func(_ string, r counts.Row) {
		k.Repositories++
		k.Pulls += int64(r.Counts[counts.Pull.Index()])
		k.Pushes += int64(r.Counts[counts.Push.Index()])
	})
}

// Forget ends the use of a registry id by a registry that no longer exists. With keep, its
// counts stay in the sum and can't be changed any more; otherwise they are removed. An
// interrupted call can be repeated. A registry that is started again after Forget counts
// under a new id.
//
// Last uses that it can have answered and not sent are lost, so uses are known from now on only,
// unless now is zero: then the operator knows that there are none.
//
// If the record changes within watch, Forget returns ErrRunning; a running registry writes
// its record at least every 10 seconds.
func (d *DB) Forget(ctx context.Context, id string, keep bool, watch time.Duration, now time.Time) (Registry, error) {
	raw, err := d.client.HGet(ctx, d.Keys.IDs(), id).Result()
	if errors.Is(err, redis.Nil) {
		return Registry{}, ErrUnknownID
	}
	if err != nil {
		return Registry{}, fmt.Errorf("look for %s: %w", id, err)
	}
	k := newRegistry(id, raw)
	if k.Removed && keep {
		return k, errors.New("counts were removed already and can't be kept")
	}
	if !k.stopped && !k.Kept && !k.Removed {
		select {
		case <-ctx.Done():
			return k, ctx.Err()
		case <-time.After(watch):
		}
	}
	if err := k.count(ctx, d); err != nil {
		return k, fmt.Errorf("read the counts of %s: %w", id, err)
	}
	if !now.IsZero() { // before the id ends, so that a call that is repeated does it
		if current, err := d.client.HGet(ctx, d.Keys.IDs(), id).Result(); err != nil || current != raw {
			return k, errors.Join(ErrRunning, err)
		}
		if k.LostUses, k.UsesUpTo, err = d.loseUses(ctx, id, now); err != nil {
			return k, fmt.Errorf("note that uses of %s are lost: %w", id, err)
		}
	}
	end := *recordOrEmpty(raw)
	end.Owner, end.Instance, end.Call, end.Part = "", "", NewID(), false
	end.Kept, end.Removed = keep, !keep
	_, err = d.Write(ctx, id, raw, end, nil)
	if errors.Is(err, ErrChanged) {
		return k, ErrRunning
	}
	if err != nil {
		return k, fmt.Errorf("end %s: %w", id, err)
	}
	k.Kept, k.Removed = keep, !keep
	if keep {
		return k, nil
	}
	if err := d.remove(ctx, id); err != nil {
		return k, fmt.Errorf("remove the counts of %s: %w", id, err)
	}
	return k, nil
}

// remove deletes the keys of an id. The totals are deleted last, since an interrupted call
// that is repeated finds the other keys by them.
func (d *DB) remove(ctx context.Context, id string) error {
	var batch []string
	var failed error
	flush := func(least int) {
		if failed == nil && len(batch) > least {
			failed = d.client.Unlink(ctx, batch...).Err()
			batch = batch[:0]
		}
	}
	err := d.scanTotals(ctx, id, func(name string, r counts.Row) {
		batch = append(batch, d.Keys.Days(id, name))
		for hash := uint64(0); hash*TagsInHash < r.Position; hash++ {
			batch = append(batch, d.Keys.Tags(id, name, hash))
			flush(RowsInCall)
		}
		flush(RowsInCall)
	})
	flush(0)
	if err := errors.Join(err, failed); err != nil {
		return err
	}
	for shard := range Shards {
		batch = append(batch, d.Keys.Shard(id, shard))
	}
	flush(0)
	return failed
}
