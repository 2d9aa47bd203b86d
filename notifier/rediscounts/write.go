package rediscounts

import (
	"context"
	_ "embed"
	"time"

	"github.com/redis/go-redis/v9"
)

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
// registry id of each run, "" for a run that may have been removed (PruneRuns). If Redis has another record, Claim changes nothing and returns
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
