package middleware

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/distribution/distribution/v3/configuration"

	"github.com/tidings-dev/tidings/middleware/admin"
	"github.com/tidings-dev/tidings/middleware/storage"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/lastuse"
	"github.com/tidings-dev/tidings/notifier/unused"
)

const (
	countedWait  = 20 * time.Second     // how long uses waits for the counter
	countedCheck = 5 * time.Millisecond // how often it looks
)

// uses implements admin.Uses.
func (r *runtime) uses(ctx context.Context, repository string, visit func(lastuse.Key, lastuse.Use) error) (lastuse.Known, error) {
	if err := r.waitCounted(ctx); err != nil {
		return lastuse.Known{}, err
	}
	return r.counter.AllUses(ctx, repository, visit)
}

// waitCounted waits until the events that are in the journal now are counted.
func (r *runtime) waitCounted(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, countedWait)
	defer cancel()
	for _, s := range []journal.Stream{journal.Pushes, journal.Pulls} {
		last := r.journal.Status(s).Last
		for r.counter.Latest(uint8(s)) < last {
			select {
			case <-ctx.Done():
				return fmt.Errorf("%w (%d of the stream %s)", admin.ErrNotCounted, last-r.counter.Latest(uint8(s)), s)
			case <-time.After(countedCheck):
			}
		}
	}
	return nil
}

// UnusedStorage returns the storage of a registry for a search; the registry may be running.
func UnusedStorage(host *configuration.Configuration) (unused.Storage, error) {
	switch {
	case host.Proxy.RemoteURL != "":
		return nil, errors.New("the registry is a pull-through cache: distribution removes its images (proxy.ttl)")
	case host.Storage.Type() == "inmemory":
		return nil, errors.New("the registry's storage is in its memory, which no other process can read")
	}
	return storage.NewReader(context.Background(), host), nil
}
