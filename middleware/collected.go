package middleware

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/middleware/collected"
	"github.com/tidings-dev/tidings/notifier"
)

// maxParallelNotes limits the notes that are recorded concurrently. Their events share
// fsyncs.
const maxParallelNotes = 64

// takeCollected records the deletes that garbage-collect has noted. Notes that
// cannot be recorded stay for the next start.
func (r *runtime) takeCollected(ctx context.Context) error {
	taken, err := collected.Take(r.options.CollectedDir(), func(notes []collected.Note) error {
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(maxParallelNotes)
		for _, note := range notes {
			group.Go(func() error { return r.takeNote(ctx, note) })
		}
		return group.Wait()
	})
	if err != nil && ctx.Err() == nil {
		r.log.Error("notes of garbage-collect not recorded; the records of the manifests that it deleted stay until the next start", "error", err)
	}
	if taken.Running > 0 {
		r.log.Warn("garbage-collect is running; the records of the manifests that it deletes stay until the next start")
	}
	if taken.Notes > 0 || taken.Bad > 0 {
		r.log.Info("recorded the deletes of garbage-collect", "manifests", taken.Notes, "unreadable", taken.Bad)
	}
	return nil
}

// takeNote records that a manifest was deleted. If storage has it, since it was not
// deleted or was pushed again, the event has no effect.
func (r *runtime) takeNote(ctx context.Context, note collected.Note) error {
	intent, err := r.notifier.IntendDelete(ctx, notifier.Delete{Repository: note.Repository, Digest: note.Digest})
	if err == nil {
		err = intent.Complete(ctx)
	}
	if err != nil {
		return fmt.Errorf("record the delete of %s@%s: %w", note.Repository, note.Digest, err)
	}
	return nil
}
