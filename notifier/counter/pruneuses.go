package counter

import (
	"context"

	"github.com/tidings-dev/tidings/notifier/lastuse"
)

// eachOldUse calls drop for each repository that this folder has counts of. old is true for a
// last use that is not needed.
func (c *Counter) eachOldUse(ctx context.Context, drop func(repository string, old func(lastuse.Key, lastuse.Use) bool) error) error {
	repositories, err := c.Repositories(ctx)
	for _, r := range repositories {
		tags := map[lastuse.Key]bool{}
		err = c.Tags(ctx, r.Name, func(tag string, _ int64) bool { tags[lastuse.OfTag(tag)] = true; return true })
		if err == nil {
			oldest := lastuse.Oldest(c.cfg.Now())
			err = drop(r.Name, func(k lastuse.Key, u lastuse.Use) bool { return u.Last().Before(oldest) && !tags[k] })
		}
		if err != nil {
			return err
		}
	}
	return err
}

// dropUses drops last uses on disk.
func (c *Counter) dropUses(repository string, old func(lastuse.Key, lastuse.Use) bool) error {
	return c.lastUse.Drop(c.db, &c.mu, repository, old)
}

// pruneRedis drops from Redis what is not needed: runs, and old last uses of all registries.
func (c *Counter) pruneRedis(ctx context.Context) error {
	c.publishing.Lock()
	defer c.publishing.Unlock()
	c.mu.Lock()
	trusted, id, epoch := c.trusted, c.reg.id(), c.sharedUses.Epoch
	c.mu.Unlock()
	if !trusted || !c.publisher.claimed {
		return nil
	}
	pending, err := c.pendingRuns()
	if err != nil {
		return err
	}
	if err := c.redis.PruneRuns(ctx, id, append(pending, c.run), c.cfg.Now()); err != nil {
		return err
	}
	return c.eachOldUse(ctx, func(repository string, old func(lastuse.Key, lastuse.Use) bool) error {
		return c.redis.PruneUses(ctx, epoch, repository, lastuse.Oldest(c.cfg.Now()), old)
	})
}
