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

// Status is how publishing goes.
type Status struct {
	Redis    bool      `json:"redis"`              // whether there is one
	Current  time.Time `json:"current,omitzero"`   // when Redis last had all numbers
	Error    string    `json:"error,omitempty"`    // of the last round; it may name hosts and keys
	Reason   string    `json:"reason,omitempty"`   // the same for everybody to see
	Away     bool      `json:"away,omitempty"`     // Redis does not answer
	Warnings []string  `json:"warnings,omitempty"` // why Redis may forget
}

// status is what the readers of numbers are told by the publisher.
type status struct {
	mu sync.Mutex
	Status
	id           string
	records      [2]string // either may be in Redis: what it acknowledged, and what is being sent
	upto         map[string]sequences
	missingSince time.Time // since when other ids have less than they had; zero: they don't
}

// Reasons that everybody may see.
const (
	reasonAway    = "Redis does not answer"
	reasonLost    = "Redis has lost numbers, they are being sent again"
	reasonOthers  = "Redis has lost numbers of another registry"
	reasonStart   = "Redis was not asked yet"
	reasonUnknown = "the log says why"
)

// reasonOf is as much of an error as everybody may know.
func reasonOf(err error) string {
	var damaged *DamagedError
	var network net.Error
	switch {
	case errors.Is(err, store.ErrNoSpace), errors.Is(err, store.ErrStopped):
		return "this registry can't write to its disk"
	case errors.Is(err, errLost):
		return reasonLost
	case errors.Is(err, errUndecided):
		return "Redis has these numbers from another data folder, which is watched before they are taken over"
	case errors.As(err, &damaged):
		return "a key in Redis is of another kind"
	case errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, context.DeadlineExceeded), errors.Is(err, redis.ErrPoolTimeout):
		return reasonAway
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

// Status tells how publishing goes.
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
	s.Error, s.Reason, s.Away = "", reason, reason == reasonAway
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

// othersWait is how long numbers of another registry may be missing before
// those that are left are shown as they are: its publisher sends them again
// within seconds, if it runs.
const othersWait = time.Minute

// others compares what the ids of other registries, all but own, count with what
// they did in the last round.
func (s *status) checkOthers(ids map[string]string, own []string, now time.Time) {
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
		if !slices.Contains(own, id) && (rec == nil || rec.Part || !rec.Removed && upto.beyond(rec.Upto)) {
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
		if there, ok := next[id]; !ok || upto.beyond(there) {
			next[id] = upto
		}
	}
	s.upto = next
}

// Check compares the records that a reader found in Redis with what the
// publisher knows. After an error the numbers there are not those of all
// registries. The error's text is for everybody to see.
func (c *Counter) Check(ids map[string]string) error {
	c.status.mu.Lock()
	defer c.status.mu.Unlock()
	s := &c.status
	reason := s.Reason
	if reason == "" && s.Current.IsZero() {
		reason = reasonStart
	}
	own := ids[s.id]
	if lost := own == "" || own != s.records[0] && own != s.records[1]; reason == "" && lost {
		reason = reasonLost
		s.Reason = reason // until the next round, which is now
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
		warnings = append(warnings, persistenceWarnings(info)...)
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
		list = append(list, "it has no append-only file, so a crash sets it back to its last dump; set appendonly to yes")
	}
	return list
}
