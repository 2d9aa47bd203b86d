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
	_ "embed"
	"errors"
	"fmt"
	"strings"
	"time"

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
	return fmt.Sprintf("redis key %q %s and was not written by Tidings; delete the key, and the counts are sent again", e.Key, e.Reason)
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

// Change sets a field to the text of a row, or deletes it if the text is empty.
type Change struct {
	Field
	Text string
}

// Written is the result of a Write.
type Written struct {
	Clock   time.Time // of Redis, in seconds; zero if it is not known
	Damaged []string  // keys that were not changed, since they are not hashes
}

//go:embed write.lua
var writeSource string

var writeScript = redis.NewScript(writeSource)

// Write makes changes under a registry id and replaces the record expected (empty: none)
// by next. If Redis has another record, Write changes nothing and returns ErrChanged. After
// any other error the write may have been executed; it can be repeated.
func (d *DB) Write(ctx context.Context, id, expected string, next Record, changes []Change) (Written, error) {
	keys, args := []string{d.Keys.IDs()}, []any{id, expected, next.Encode()}
	var sets, deletes []any
	for i, c := range changes {
		// One group of arguments for consecutive changes of a key.
		if c.Text == "" {
			deletes = append(deletes, c.Name)
		} else {
			sets = append(sets, c.Name, c.Text)
		}
		if i+1 == len(changes) || changes[i+1].Key != c.Key {
			keys = append(keys, c.Key)
			args = append(append(append(args, len(sets)/2, len(deletes)), sets...), deletes...)
			sets, deletes = nil, nil
		}
	}
	reply, err := writeScript.Run(ctx, d.client, keys, args...).Slice()
	if err != nil {
		return Written{}, typeError(err, d.Keys.IDs())
	}
	if len(reply) < 2 || reply[0] != "ok" {
		return Written{}, ErrChanged
	}
	var w Written
	if seconds, _ := reply[1].(int64); seconds > 0 {
		w.Clock = time.Unix(seconds, 0)
	}
	for _, key := range reply[2:] {
		key, _ := key.(string)
		w.Damaged = append(w.Damaged, key)
	}
	return w, nil
}

// Run is a process that has counted something.
type Run struct {
	ID    string
	Force bool // enter it under the id even if it is entered under another one
}

//go:embed claim.lua
var claimSource string

var claimScript = redis.NewScript(claimSource)

// Claim replaces the record expected of a registry id (empty: none) by next, and enters
// the runs under the id, except those that are entered under another one. It returns the
// registry id of each run. If Redis has another record, Claim changes nothing and returns
// ErrChanged.
func (d *DB) Claim(ctx context.Context, id, expected string, next Record, runs []Run) ([]string, error) {
	args := []any{id, expected, next.Encode()}
	for _, run := range runs {
		force := "0"
		if run.Force {
			force = "1"
		}
		args = append(args, run.ID, force)
	}
	reply, err := claimScript.Run(ctx, d.client, []string{d.Keys.IDs(), d.Keys.Runs()}, args...).StringSlice()
	if err != nil {
		return nil, typeError(err, d.Keys.Runs()) // the ids were just read as a hash
	}
	if len(reply) != 1+len(runs) || reply[0] != "ok" {
		return nil, ErrChanged
	}
	return reply[1:], nil
}

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
