package backfill

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/internal/glob"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/owners"
	"github.com/tidings-dev/tidings/notifier/records"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/stored"
)

const (
	// readAhead is how many manifests are read at once. Each may have 4 MiB.
	readAhead = 16
	// saveEvery is after how many events the progress is saved.
	saveEvery = 100
	// maxBytes limits the pending events of a job, in bytes.
	maxBytes = 8 << 20
	// pollEvery is how often the records sink is looked at.
	pollEvery = 10 * time.Millisecond
)

// A run is one attempt to finish a job.
type run struct {
	*Backfill
	job     *Job
	unsaved int       // events since the progress was saved
	next    time.Time // when the rate of the request allows the next event
	pending []pendingEvent
	records int // of pending
	bytes   int // of pending
}

// A pendingEvent is an event of this attempt that the records sink may not have processed.
type pendingEvent struct {
	seq     uint64
	records int
	bytes   int
}

// A missing manifest has no records, and needs them.
type missing struct {
	repository, digest, mediaType string
	payload                       []byte
	records                       int
}

func (r *run) run(ctx context.Context) error {
	if err := r.ready(ctx); err != nil {
		return err
	}
	if r.now().Phase == Counting {
		if err := r.count(ctx); err != nil {
			return err
		}
	}
	if r.job.DryRun {
		return r.finish(Done)
	}
	if r.now().Phase == Recording {
		// So that no manifest gets a second event after a crash.
		last := r.Journal.Status(journal.Pushes).Last
		if err := r.waitUntil(ctx, "the records sink is behind", func() bool { return r.Journal.Cursor(journal.Pushes, records.Name) >= last }); err != nil {
			return err
		}
		if err := r.record(ctx); err != nil {
			return err
		}
	}
	j := r.now()
	if j.Journal == r.Journal.ID() {
		if err := r.waitUntil(ctx, "", func() bool { return r.Journal.Cursor(journal.Pushes, records.Name) >= j.Last }); err != nil {
			return err
		}
	}
	r.Log.Info("the backfill is complete", "manifests", j.Recorded, "records", j.Records, "unowned", j.Unowned)
	return r.finish(Done)
}

// now returns a copy of the job.
func (r *run) now() Job {
	r.mu.Lock()
	defer r.mu.Unlock()
	return *r.job
}

// update changes the job. If batch is not nil, the job is added to it.
func (r *run) update(batch *state.Batch, change func(*Job)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.job.Running() {
		return // it was stopped
	}
	change(r.job)
	r.job.Error = ""
	if batch != nil {
		r.job.put(batch)
	}
}

// save commits a batch, unless the job was stopped.
func (r *run) save(batch *state.Batch, d state.Durability) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.job.Running() {
		return context.Canceled
	}
	return r.State.Commit(batch, d)
}

func (r *run) finish(phase string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.job.Running() {
		return context.Canceled
	}
	return r.end(phase)
}

// count counts the manifests without records. It begins again after a crash.
func (r *run) count(ctx context.Context) error {
	r.update(nil, func(j *Job) { j.Manifests, j.Missing, j.Creates, j.Unowned, j.Purged = 0, 0, 0, 0, 0 })
	err := r.Storage.Repositories(ctx, func(repository string) error {
		if !r.matches(repository) {
			return nil
		}
		purged, err := r.Purged(repository)
		if err != nil {
			return err
		}
		if purged {
			r.update(nil, func(j *Job) { j.Purged++ })
			return nil
		}
		if published, err := r.Published(repository); !published || err != nil {
			return err
		}
		owner := r.OwnerOf(ctx, repository)
		return r.each(ctx, repository, owner, func(found []missing, looked int) error {
			r.update(nil, func(j *Job) {
				j.Manifests += int64(looked)
				if owner.DID == "" {
					j.Unowned += int64(len(found))
					return
				}
				j.Missing += int64(len(found))
				for _, m := range found {
					j.Creates += int64(m.records)
				}
			})
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("count manifests without records: %w", err)
	}
	var b state.Batch
	r.update(&b, func(j *Job) { j.Phase = Recording })
	return r.save(&b, state.Sync)
}

// matches reports whether the request is for a repository, if it is published.
func (r *run) matches(repository string) bool {
	return r.job.Repository == "" || glob.MatchRepository(r.job.Repository, repository)
}

// record appends the events of all repositories.
func (r *run) record(ctx context.Context) error {
	err := r.Storage.Repositories(ctx, func(repository string) error {
		if !r.matches(repository) {
			return nil
		}
		if published, err := r.Published(repository); !published || err != nil {
			return err
		}
		if done, err := state.Has(r.State, repositoryKey(repository)); done || err != nil {
			return err
		}
		owner := r.OwnerOf(ctx, repository)
		if owner.DID == "" {
			return nil
		}
		err := r.each(ctx, repository, owner, func(found []missing, _ int) error {
			for i := range found {
				if err := r.append(ctx, owner, &found[i]); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		var b state.Batch
		b.Set(repositoryKey(repository), nil)
		r.update(&b, func(*Job) {})
		return r.save(&b, state.NoSync)
	})
	if err != nil {
		return fmt.Errorf("backfill: %w", err)
	}
	var b state.Batch
	r.update(&b, func(j *Job) { j.Phase, j.Waiting = Finishing, "" })
	return r.save(&b, state.Sync)
}

// each calls visit with the manifests of a repository without records, some at a time, and
// with the number of manifests that were looked at for them.
func (r *run) each(ctx context.Context, repository string, owner owners.Owner, visit func(found []missing, looked int) error) error {
	var digests []string
	flush := func() error {
		found, err := r.missing(ctx, repository, owner, digests)
		if err == nil {
			err = visit(found, len(digests))
		}
		digests = digests[:0]
		return err
	}
	err := r.Storage.Manifests(ctx, repository, func(digest string) error {
		digests = append(digests, digest)
		if len(digests) < readAhead {
			return nil
		}
		return flush()
	})
	if err == nil {
		err = flush()
	}
	return err
}

// missing returns those of the manifests that have no records, and need them.
func (r *run) missing(ctx context.Context, repository string, owner owners.Owner, digests []string) ([]missing, error) {
	read := make([]missing, len(digests))
	g, gctx := errgroup.WithContext(ctx)
	for i, digest := range digests {
		g.Go(func() (err error) {
			entry, known, err := r.Ledger.Get(owner.DID, digest)
			if err != nil || known && entry.In(repository) {
				return err
			}
			if forgotten, err := r.Forgotten(owner.DID, digest); forgotten || err != nil {
				return err
			}
			read[i], err = r.read(gctx, repository, digest)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var found []missing
	for _, m := range read {
		if m.records > 0 {
			found = append(found, m)
		}
	}
	return found, nil
}

// read reads a manifest. The result has no records if it was deleted meanwhile, is damaged
// or needs none.
func (r *run) read(ctx context.Context, repository, digest string) (missing, error) {
	mediaType, payload, err := r.Storage.Manifest(ctx, repository, digest)
	if errors.Is(err, stored.ErrNotStored) || errors.Is(err, stored.ErrUnreadable) {
		return missing{}, nil
	}
	if err != nil {
		return missing{}, err
	}
	info, err := event.ReadManifest(mediaType, payload)
	if err != nil {
		return missing{}, nil
	}
	layers, _ := event.LayersOf(&info)
	return missing{repository, digest, mediaType, payload, len(layers)}, nil
}
