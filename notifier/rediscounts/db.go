// Package rediscounts is the counts of an installation in Redis: those of each of its
// registries under a registry id, with a record that says who writes them, and a stream
// of what the registries learn from each other. It has the keys, the scripts that write,
// and the readers that add up the counts of all registries.
//
// Only one process writes under a registry id. Each write expects the record that the
// write before left and replaces it, so a writer detects at once that Redis has lost
// something or that another process took the id. Which process may take an id, and what
// is written again after a loss, is decided by package counter.
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

// DB is the counts of one installation in Redis. It is safe for concurrent use.
type DB struct {
	Keys   Keys
	client redis.UniversalClient
}

// New returns the counts of the installation with a name; empty stands for "default".
func New(client redis.UniversalClient, name string) *DB {
	return &DB{NewKeys(name), client}
}

// ErrChanged means that a record is not the expected one: Redis has lost numbers, or
// another process has written the record.
var ErrChanged = errors.New("the record in Redis has changed")

// DamagedError reports a key that has the wrong type.
type DamagedError struct {
	Key    string
	Reason string
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("redis key %q %s and was not written by Tidings; delete the key, and the numbers are sent again", e.Key, e.Reason)
}

// NotAHash is the error for a key that should be a hash.
func NotAHash(key string) *DamagedError { return &DamagedError{key, "is not a hash"} }

// typeError turns Redis' error about a key of another type into one that the operator
// can act on.
func typeError(err error, key string) error {
	if strings.Contains(err.Error(), "WRONGTYPE") {
		return NotAHash(key)
	}
	return err
}

// Records reads the records of all registry ids.
func (d *DB) Records(ctx context.Context) (map[string]string, error) {
	records, err := d.client.HGetAll(ctx, d.Keys.IDs()).Result()
	if err != nil {
		return nil, typeError(err, d.Keys.IDs())
	}
	return records, nil
}

// RowsInCall is how many rows are sent or read in one call at most, so that a call
// blocks Redis for less than a millisecond.
const RowsInCall = 256

// Change sets a field, or deletes it if Text is empty.
type Change struct {
	Field
	Text string // of a row
}

// Written is the result of a Write.
type Written struct {
	Clock   time.Time // of Redis, in seconds; zero if it is not known
	Damaged []string  // keys that are not hashes, and were left unchanged
}

//go:embed write.lua
var writeSource string

var writeScript = redis.NewScript(writeSource)

// Write makes changes under a registry id and replaces its record, expected, by next. It
// returns ErrChanged, and has changed nothing, if Redis has another record. After any
// other error it may have been executed; it may be repeated.
func (d *DB) Write(ctx context.Context, id, expected string, next Record, changes []Change) (Written, error) {
	keys, args := []string{d.Keys.IDs()}, []any{id, expected, next.Encode()}
	var sets, deletes []any
	for i, c := range changes {
		// One argument group per sequence of changes of the same key; a key may
		// have several.
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

// Run is a process whose numbers are counted under a registry id.
type Run struct {
	ID    string
	Force bool // enter it even if it is entered under another id
}

//go:embed claim.lua
var claimSource string

var claimScript = redis.NewScript(claimSource)

// Claim replaces the record of a registry id, expected, by next and enters runs under
// the id. It returns the registry id that has each run. It returns ErrChanged, and has
// changed nothing, if Redis has another record.
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

// WrongType is what Values returns for a field of a key that is not a hash. It differs
// from the text of any row.
const WrongType = "?"

// Values reads fields. The value of a missing field, or one without a key, is empty.
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

// Lengths returns the number of fields of hashes, -1 for a key of another type.
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
