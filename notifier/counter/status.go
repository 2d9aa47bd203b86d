package counter

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Status is how publishing goes.
type Status struct {
	Redis    bool      `json:"redis"`              // whether there is one
	Current  time.Time `json:"current,omitzero"`   // when Redis last had all numbers
	Error    string    `json:"error,omitempty"`    // of the last round
	Warnings []string  `json:"warnings,omitempty"` // why Redis may forget
}

type status struct {
	mu sync.Mutex
	Status
}

// Status tells how publishing goes.
func (c *Counter) Status() Status {
	c.status.mu.Lock()
	defer c.status.mu.Unlock()
	s := c.status.Status
	s.Redis = c.cfg.Redis != nil
	s.Warnings = slices.Clone(s.Warnings)
	return s
}

func (s *status) round(now time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Error = ""
	if err != nil {
		s.Error = err.Error()
		return
	}
	s.Current = now
}

// inspect asks Redis whether it may evict or forget. Numbers survive that, as
// they are sent again; those of replicas that are gone for good don't.
func (c *Counter) inspect(ctx context.Context) error {
	if c.cfg.Redis == nil {
		return nil
	}
	var mu sync.Mutex
	var warnings []string
	look := func(ctx context.Context, one *redis.Client) error {
		info, err := one.Info(ctx).Result()
		if err != nil {
			return fmt.Errorf("ask Redis how it keeps data: %w", err)
		}
		mu.Lock()
		defer mu.Unlock()
		warnings = append(warnings, forgets(info)...)
		return nil
	}
	var err error
	switch r := c.cfg.Redis.(type) {
	case *redis.ClusterClient:
		err = r.ForEachMaster(ctx, look)
	case *redis.Client:
		err = look(ctx, r)
	}
	if err != nil {
		return err
	}
	slices.Sort(warnings)
	warnings = slices.Compact(warnings)
	c.status.mu.Lock()
	before := c.status.Warnings
	c.status.Warnings = warnings
	c.status.mu.Unlock()
	if !slices.Equal(before, warnings) {
		for _, w := range warnings {
			c.log.Warn("Redis may forget numbers: " + w)
		}
	}
	return nil
}

// forgets reads the answer to INFO.
func forgets(info string) []string {
	field := map[string]string{}
	for line := range strings.Lines(info) {
		if name, val, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			field[name] = val
		}
	}
	var list []string
	if p := field["maxmemory_policy"]; p != "" && p != "noeviction" && field["maxmemory"] != "0" {
		list = append(list, fmt.Sprintf("maxmemory-policy is %s; set it to noeviction", p))
	}
	if field["aof_enabled"] == "0" {
		list = append(list, "it has no append-only file, so a crash sets it back to its last dump; set appendonly to yes")
	}
	return list
}
