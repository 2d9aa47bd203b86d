package counter

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/lastuse"
	"github.com/tidings-dev/tidings/notifier/rediscounts"
)

// useTracking says which events the last use of tags and manifests is known from. It is
// written by each Fold. If the last events that were folded are not those of Upto, a version
// has folded events that does not track the last use.
type useTracking struct {
	Since time.Time // the uses are complete from here on
	Upto  rediscounts.Sequences
}

// loadUseTracking begins to track the last use unless all events that were folded are in it.
// The beginning is written with the next Fold.
func (c *Counter) loadUseTracking() error {
	c.usesSince = c.cfg.Now().UTC()
	raw, err := store.Read(c.db, []byte(lastUseKey))
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	var stored useTracking
	if err := json.Unmarshal(raw, &stored); err != nil {
		c.log.Error("damaged state of the last use; it is tracked from now on", "error", err)
		return nil
	}
	for stream, seq := range c.folded() {
		if stored.Upto[stream] != seq {
			c.log.Warn("another version has counted events; the last use of tags and manifests is known from now on only")
			return nil
		}
	}
	c.usesSince = stored.Since
	return nil
}

// putUseTracking adds the position after a fold to its batch. The caller must hold c.mu.
func (c *Counter) putUseTracking(b store.Batch, stream uint8, upTo uint64) error {
	now := useTracking{c.usesSince, c.folded()}
	now.Upto[stream] = max(now.Upto[stream], upTo)
	raw, err := json.Marshal(now)
	if err != nil {
		return err
	}
	return b.Set([]byte(lastUseKey), raw)
}

// UsesLost begins to track the last use anew, since events may have been lost that are not
// in it. It is durable when UsesLost returns.
func (c *Counter) UsesLost() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.usesSince = c.cfg.Now().UTC()
	raw, err := json.Marshal(useTracking{c.usesSince, c.folded()})
	if err == nil {
		err = c.db.Set([]byte(lastUseKey), raw, store.Sync)
	}
	if err != nil {
		return fmt.Errorf("begin to track the last use anew: %w", err)
	}
	return nil
}

// UsesSince returns the time from which on all uses of tags and manifests in this data
// folder are known.
func (c *Counter) UsesSince() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.usesSince
}

// Uses calls visit with the last use of the tags and manifests of a repository, until it
// returns an error. One that was not pushed or used since UsesSince is left out.
func (c *Counter) Uses(repository string, visit func(lastuse.Key, lastuse.Use) error) error {
	if err := c.lastUse.Repository(c.db, repository, visit); err != nil {
		return fmt.Errorf("read the last use in %s: %w", repository, err)
	}
	return nil
}
