// Package rediscounts stores the counts of an installation in Redis: the counts of each
// registry under a registry id, a record for each id that names the process that writes
// under it, and a stream in which registries share what they know of indexes and tags. It
// owns the keys, the scripts, and the Sum, which adds up the counts of all registries.
//
// Each write names the record that it expects and replaces it. A write after Redis has
// lost data, or after another process has claimed the id, therefore fails with ErrChanged.
// Which process may claim an id, and what is written again after a loss, is decided by
// package counter.
package rediscounts

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

// DB is an installation's counts in Redis. It is safe for concurrent use.
type DB struct {
	Keys   Keys
	client redis.UniversalClient
}

// New returns the counts of the installation with a name; an empty name stands for
// "default".
func New(client redis.UniversalClient, name string) *DB {
	return &DB{NewKeys(name), client}
}

// ErrChanged means that a record is not the expected one: Redis has lost data, or another
// process has written the record.
var ErrChanged = errors.New("unexpected record in Redis")

// DamagedError reports a key that has the wrong type. Other keys are not affected.
type DamagedError struct {
	Key    string
	Reason string
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("redis key %q %s and was not written by Tidings; delete the key, and the counts are sent again",
		e.Key, e.Reason)
}

// NotAHash returns the error for a key that has to be a hash.
func NotAHash(key string) *DamagedError { return &DamagedError{key, "is not a hash"} }

// typeError turns Redis' error about a key of another type into one that the operator
// can act on.
func typeError(err error, key string) error {
	if strings.Contains(err.Error(), "WRONGTYPE") {
		return NotAHash(key)
	}
	return err
}

// Records returns the records of all registry ids, encoded.
func (d *DB) Records(ctx context.Context) (map[string]string, error) {
	records, err := d.client.HGetAll(ctx, d.Keys.IDs()).Result()
	if err != nil {
		return nil, typeError(err, d.Keys.IDs())
	}
	return records, nil
}

// RowsInCall is the maximum number of rows in one call, with which it blocks Redis for
// less than a millisecond.
const RowsInCall = 256

// WrongType is the value of a field whose key is not a hash. It differs from the text of
// any row.
const WrongType = "?"

// Values returns the values of fields; empty for a missing field and for one without a key.
func (d *DB) Values(ctx context.Context, fields []Field) ([]string, error) {
	cmds := make([]*redis.StringCmd, len(fields))
	_, err := d.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, f := range fields {
			if f.Key != "" {
				cmds[i] = p.HGet(ctx, f.Key, f.Name)
			}
		}
		return nil
	})
	values := make([]string, len(fields))
	for i, cmd := range cmds {
		if cmd == nil {
			continue
		}
		val, cmdErr := cmd.Result()
		switch {
		case cmdErr == nil:
			values[i] = val
		case redis.HasErrorPrefix(cmdErr, "WRONGTYPE"):
			values[i] = WrongType
		case !errors.Is(cmdErr, redis.Nil):
			return nil, cmdErr
		}
	}
	if err != nil && !errors.Is(err, redis.Nil) && !redis.HasErrorPrefix(err, "WRONGTYPE") {
		return nil, err
	}
	return values, nil
}

// Lengths returns the number of fields of each hash, and -1 for a key of another type.
func (d *DB) Lengths(ctx context.Context, keys []string) ([]int64, error) {
	cmds, err := d.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, key := range keys {
			p.HLen(ctx, key)
		}
		return nil
	})
	if len(cmds) != len(keys) {
		return nil, err
	}
	lengths := make([]int64, len(keys))
	for i, cmd := range cmds {
		n, err := cmd.(*redis.IntCmd).Result()
		switch {
		case redis.HasErrorPrefix(err, "WRONGTYPE"):
			lengths[i] = -1
		case err != nil:
			return nil, err
		default:
			lengths[i] = n
		}
	}
	return lengths, nil
}

// Names lists the fields of a hash.
func (d *DB) Names(ctx context.Context, key string) ([]string, error) {
	names, err := d.client.HKeys(ctx, key).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, err
	}
	return names, nil
}
