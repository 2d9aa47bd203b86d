package rediscounts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// Unreachable is the reason for errors of a Redis that does not answer.
const Unreachable = "Redis does not answer"

// Reason returns a reason for an error that can be published, without hosts and keys;
// empty for an unknown error.
func Reason(err error) string {
	var damaged *DamagedError
	var network net.Error
	switch {
	case errors.As(err, &damaged):
		return "a key in Redis has the wrong type"
	case errors.As(err, &network), errors.Is(err, io.EOF),
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, redis.ErrPoolTimeout):
		return Unreachable
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
	return ""
}

// Warnings returns settings of Redis with which it may evict keys or lose writes. Running
// registries write their counts again after that; those of registries that no longer
// exist are lost.
func (d *DB) Warnings(ctx context.Context) ([]string, error) {
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
	switch r := d.client.(type) {
	case *redis.ClusterClient:
		err = r.ForEachMaster(ctx, inspect)
	case *redis.Client:
		err = inspect(ctx, r)
	}
	if err != nil {
		return nil, err
	}
	slices.Sort(warnings)
	return slices.Compact(warnings), nil
}

// persistenceWarnings returns the warnings for a result of INFO.
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
