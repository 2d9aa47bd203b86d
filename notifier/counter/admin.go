package counter

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

// RegistryInfo describes a registry id in Redis: a registry, or what one counted
// before its data folder was set back or copied.
type RegistryInfo struct {
	ID           string
	Host         string
	Seen         time.Time // by the registry's clock
	Kept         bool      // by Forget
	Removed      bool      // by Forget
	Repositories int
	Pulls        int64
	Pushes       int64

	raw     string
	stopped bool // it was released when the registry stopped
}

// ErrRunning means that a registry is counting under the id.
var ErrRunning = errors.New("registry id is in use")

// ErrUnknownID means that Redis has no such registry id.
var ErrUnknownID = errors.New("unknown registry id")

// List returns the registry ids of an installation, most recently seen first.
func List(ctx context.Context, client redis.UniversalClient, name string) ([]RegistryInfo, error) {
	keys := newKeyspace(name)
	records, err := client.HGetAll(ctx, keys.ids()).Result()
	if err != nil {
		return nil, fmt.Errorf("list registry ids: %w", err)
	}
	var list []RegistryInfo
	for id, raw := range records {
		k := registryInfo(id, raw)
		if err := k.count(ctx, client, keys); err != nil {
			return nil, fmt.Errorf("read the numbers of %s: %w", id, err)
		}
		list = append(list, k)
	}
	slices.SortFunc(list, func(a, b RegistryInfo) int {
		if c := b.Seen.Compare(a.Seen); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return list, nil
}

// recordOrEmpty returns a record without an owner for an empty value.
func recordOrEmpty(raw string) *record {
	if rec := parseRecord(raw); rec != nil {
		return rec
	}
	return &record{}
}

func registryInfo(id, raw string) RegistryInfo {
	rec := recordOrEmpty(raw)
	return RegistryInfo{
		ID: id, Host: rec.Host, Seen: time.Unix(rec.Seen, 0).UTC(), Kept: rec.Kept, Removed: rec.Removed,
		raw: raw, stopped: rec.Owner == "" || rec.Instance == "",
	}
}

func (k *RegistryInfo) count(ctx context.Context, client redis.UniversalClient, keys keyspace) error {
	return scanTotals(ctx, client, keys, k.ID, func(_ string, r counts.Row) {
		k.Repositories++
		k.Pulls += int64(r.Counts[counts.Pull.Index()])
		k.Pushes += int64(r.Counts[counts.Push.Index()])
	})
}

// Forget ends the registry id of a registry that no longer exists. With keep, its
// numbers still count and can't be changed any more; otherwise they are removed. An
// interrupted call may be repeated. If the registry comes back, it counts under a new
// id. If the record changes within watch, Forget returns ErrRunning; the record of a
// running registry changes every 10 seconds at least.
func Forget(ctx context.Context, client redis.UniversalClient, name, id string, keep bool, watch time.Duration) (RegistryInfo, error) {
	keys := newKeyspace(name)
	raw, err := client.HGet(ctx, keys.ids(), id).Result()
	if errors.Is(err, redis.Nil) {
		return RegistryInfo{}, ErrUnknownID
	}
	if err != nil {
		return RegistryInfo{}, fmt.Errorf("look for %s: %w", id, err)
	}
	k := registryInfo(id, raw)
	if k.Removed && keep {
		return k, errors.New("the numbers were already removed and can't be kept")
	}
	if !k.stopped && !k.Kept && !k.Removed {
		select {
		case <-ctx.Done():
			return k, ctx.Err()
		case <-time.After(watch):
		}
	}
	if err := k.count(ctx, client, keys); err != nil {
		return k, fmt.Errorf("read the numbers of %s: %w", id, err)
	}
	end := *recordOrEmpty(raw)
	end.Owner, end.Instance, end.Call, end.Part = "", "", random(), false
	end.Kept, end.Removed = keep, !keep
	reply, err := publishScript.Run(ctx, client, []string{keys.ids()}, id, raw, end.encode()).Slice()
	if err != nil {
		return k, fmt.Errorf("end %s: %w", id, err)
	}
	if len(reply) == 0 || reply[0] != "ok" {
		return k, ErrRunning
	}
	k.Kept, k.Removed = keep, !keep
	if keep {
		return k, nil
	}
	if err := remove(ctx, client, keys, id); err != nil {
		return k, fmt.Errorf("remove the numbers of %s: %w", id, err)
	}
	return k, nil
}

// remove deletes the keys of an id. The totals, which name the other keys, are deleted
// last, so that an interrupted call can be repeated.
func remove(ctx context.Context, client redis.UniversalClient, keys keyspace, id string) error {
	var batch []string
	var failed error
	flush := func(least int) {
		if failed == nil && len(batch) > least {
			failed = client.Unlink(ctx, batch...).Err()
			batch = batch[:0]
		}
	}
	err := scanTotals(ctx, client, keys, id, func(name string, r counts.Row) {
		batch = append(batch, keys.days(id, name))
		for hash := uint64(0); hash*tagsInHash < r.Position; hash++ {
			batch = append(batch, keys.tags(id, name, hash))
			flush(rowsInCall)
		}
		flush(rowsInCall)
	})
	flush(0)
	if err := errors.Join(err, failed); err != nil {
		return err
	}
	for shard := range shards {
		batch = append(batch, keys.shard(id, shard))
	}
	flush(0)
	return failed
}
