package rediscounts

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tidings-dev/tidings/notifier/counts"
)

// How long a run is kept
//
// A run is entered under the registry id under which its counts are, so that a copy of its
// folder, which can have the same counts as pending rows, does not add them again. A copy can
// be made and started at any time, so a run that is removed must not look like one that was
// never entered: its id has the day on which the process started, and the field "pruned" of the
// hash has the day before which runs were removed. Claim does not enter an earlier run that is
// missing, and the folder that has its counts drops them.
//
// The registry that uses a registry id removes the runs under it that started more than
// KeepRuns days ago and of which it has no pending rows. So it loses nothing itself. What is
// lost are the counts of a process of another folder that did not reach Redis in that time.
//
// Ids of earlier versions, which are random alone, are neither removed nor refused.

// KeepRuns is for how many days a run is kept.
const KeepRuns = counts.KeepDays

// NewRun returns an id for a process that starts now.
func NewRun(now time.Time) string { return runsFrom(counts.DayOf(now)) + NewID()[:10] }

// runsFrom is the beginning of the ids of the runs of a day. Those of later days are greater,
// and so are the ids of earlier versions, which begin with a letter or a digit from 2 to 7.
func runsFrom(day int64) string { return fmt.Sprintf("0%05x", max(0, day)) }

//go:embed runs.lua
var runsSource string

var runsScript = redis.NewScript(runsSource)

// PruneRuns removes the runs under a registry id that are older than KeepRuns days, except
// those of keep. Only the process that owns the id may call it, with the runs of which its
// folder has pending rows.
func (d *DB) PruneRuns(ctx context.Context, id string, keep []string, now time.Time) error {
	first := runsFrom(counts.DayOf(now) - KeepRuns)
	var old []string
	for cursor, more := uint64(0), true; more; more = cursor != 0 {
		pairs, next, err := d.client.HScan(ctx, d.Keys.Runs(), cursor, "", 1000).Result()
		if err != nil {
			return typeError(err, d.Keys.Runs())
		}
		for i := 0; i+1 < len(pairs); i += 2 {
			if run := pairs[i]; pairs[i+1] == id && run < first && !slices.Contains(keep, run) {
				old = append(old, run)
			}
		}
		cursor = next
	}
	for chunk := range slices.Chunk(old, RowsInCall) {
		args := []any{first}
		for _, run := range chunk {
			args = append(args, run)
		}
		if err := runsScript.Run(ctx, d.client, []string{d.Keys.Runs()}, args...).Err(); err != nil && !errors.Is(err, redis.Nil) {
			return typeError(err, d.Keys.Runs())
		}
	}
	return nil
}
