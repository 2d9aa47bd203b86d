package counter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tidings-dev/tidings/internal/store"
)

// Status is the state of publishing.
type Status struct {
	Redis       bool      `json:"redis"`              // Redis is configured
	Current     time.Time `json:"current,omitzero"`   // when Redis last had all numbers
	Error       string    `json:"error,omitempty"`    // of the last round; may contain host names and keys
	Reason      string    `json:"reason,omitempty"`   // the same without them, for everybody
	Unreachable bool      `json:"away,omitempty"`     // Redis does not answer
	Warnings    []string  `json:"warnings,omitempty"` // why Redis may lose data
}

// status is what readers of numbers need to know from the publisher.
type status struct {
	mu sync.Mutex
	Status
	id           string
	records      [2]string            // in Redis is either of these: the acknowledged record, or the one being sent
	upto         map[string]sequences // Upto of each id in the last round
	missingSince time.Time            // since when other ids have less than they had; zero: they don't
}

// Reasons for everybody to see.
const (
	reasonUnreachable = "Redis does not answer"
	reasonLost        = "Redis has lost numbers; they are being sent again"
	reasonOthers      = "Redis has lost numbers of another registry"
	reasonStart       = "numbers were not published yet since the start"
	reasonUnknown     = "see the log for the reason"
)

// reasonOf returns the part of an error that everybody may see.
func reasonOf(err error) string {
	var damaged *damagedError
	var network net.Error
	switch {
	case errors.Is(err, store.ErrNoSpace), errors.Is(err, store.ErrStopped):
		return "this registry can't write to its disk"
	case errors.Is(err, errLost):
		return reasonLost
	case errors.Is(err, errUndecided):
		return "another data folder has these numbers in Redis and is watched before they are claimed"
	case errors.As(err, &damaged):
		return "a key in Redis has the wrong type"
	case errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, context.DeadlineExceeded), errors.Is(err, redis.ErrPoolTimeout):
		return reasonUnreachable
	}
	for _, known := range []struct{ code, reason string }{
		{"READONLY", "Redis is read-only"},
		{"OOM", "Redis is out of memory"},
		{"NOPERM", "Redis denies a command (ACL)"},
		{"ACL failure", "Redis denies a command (ACL)"}, // in a script, before Redis 7
		{"can't run this command or subcommand", "Redis denies a command (ACL)"},
		{"NOAUTH", "Redis refuses the login"},
		{"WRONGPASS", "Redis refuses the login"},
		{"MISCONF", "Redis can't write to its disk"},
		{"LOADING", "Redis is loading its data"},
		{"MASTERDOWN", "Redis has lost its master"},
		{"CLUSTERDOWN", "Redis has lost its master"},
		{"NOREPLICAS", "Redis has too few replicas"},
	} {
		if strings.Contains(err.Error(), known.code) {
			return known.reason
		}
	}
	return reasonUnknown
}

// Status returns the state of publishing.
func (c *Counter) Status() Status {
	c.status.mu.Lock()
	defer c.status.mu.Unlock()
	s := c.status.Status
	s.Redis = c.cfg.Redis != nil
	s.Warnings = slices.Clone(s.Warnings)
	switch {
	case s.Redis && s.Reason == "" && s.Current.IsZero():
		s.Reason = reasonStart
	case s.Reason == "" && !c.status.missingSince.IsZero():
		s.Reason = reasonOthers
	}
	return s
}

func (s *status) finished(now time.Time, err error, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Error, s.Reason, s.Unreachable = "", reason, reason == reasonUnreachable
	if err != nil {
		s.Error = err.Error()
		return
	}
	s.Current = now
}

func (s *status) sending(id, raw string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.id != id {
		s.id, s.records = id, [2]string{}
	}
	s.records[1] = raw
}

func (s *status) wrote(id, raw string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.id, s.records = id, [2]string{raw, raw}
}

// othersWait is how long numbers of another registry may be missing before the rest is
// shown without them: a running registry sends its numbers again within seconds.
const othersWait = time.Minute

// checkOthers compares the records of all ids except ours with those of the last
// round.
func (s *status) checkOthers(ids map[string]string, ours []string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := map[string]sequences{}
	for id, raw := range ids {
		if rec := parseRecord(raw); rec != nil && !rec.Removed && !rec.Part {
			next[id] = rec.Upto
		}
	}
	missing := false
	for id, upto := range s.upto {
		rec := parseRecord(ids[id])
		if !slices.Contains(ours, id) && (rec == nil || rec.Part || !rec.Removed && upto.beyond(rec.Upto)) {
			missing = true
		}
	}
	switch passed := now.Sub(s.missingSince); {
	case missing && (s.missingSince.IsZero() || passed < 0):
		s.missingSince = now
	case !missing || passed > othersWait:
		s.missingSince, s.upto = time.Time{}, next
		return
	}
	for id, upto := range s.upto {
		if latest, ok := next[id]; !ok || upto.beyond(latest) {
			next[id] = upto
		}
	}
	s.upto = next
}

// Check compares the records that a reader found in Redis with what the publisher
// knows. If it returns an error, Redis does not have the numbers of all registries.
// The text of the error is for everybody to see.
func (c *Counter) Check(ids map[string]string) error {
	c.status.mu.Lock()
	defer c.status.mu.Unlock()
	s := &c.status
	reason := s.Reason
	if reason == "" && s.Current.IsZero() {
		reason = reasonStart
	}
	current := ids[s.id]
	if lost := current == "" || current != s.records[0] && current != s.records[1]; reason == "" && lost {
		reason = reasonLost
		s.Reason = reason // until the next round, which starts now
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
	if reason == "" && !s.missingSince.IsZero() {
		reason = reasonOthers
	}
	if reason != "" {
		return errors.New(reason)
	}
	return nil
}

// inspect asks Redis whether it may evict keys or lose writes. The numbers of running
// registries are sent again after that; those of registries that no longer exist are
// lost.
func (c *Counter) inspect(ctx context.Context) error {
	if c.cfg.Redis == nil {
		return nil
	}
	var mu sync.Mutex
	var warnings []string
	inspect := func(ctx context.Context, one *redis.Client) error {
		info, err := one.Info(ctx).Result()
		if err != nil {
			return fmt.Errorf("read persistence settings of Redis: %w", err)
		}
		mu.Lock()
		defer mu.Unlock()
		warnings = append(warnings, persistenceWarnings(info)...)
		return nil
	}
	var err error
	switch r := c.cfg.Redis.(type) {
	case *redis.ClusterClient:
		err = r.ForEachMaster(ctx, inspect)
	case *redis.Client:
		err = inspect(ctx, r)
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
			c.log.Warn("Redis may lose numbers: " + w)
		}
	}
	return nil
}

// persistenceWarnings evaluates the result of INFO.
func persistenceWarnings(info string) []string {
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
		list = append(list, "there is no append-only file, so a crash loses everything since the last dump; set appendonly to yes")
	}
	return list
}
