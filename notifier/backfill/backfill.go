package backfill

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/atproto/pds"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/ledger"
	"github.com/tidings-dev/tidings/notifier/owners"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/stored"
)

// ErrRunning is returned by Begin while a job runs.
var ErrRunning = errors.New("a backfill is running; `tidings backfill --stop` ends it")

// ErrNone is returned if there is no job.
var ErrNone = errors.New("no backfill was begun")

// Config configures New.
type Config struct {
	State   state.Store
	Storage *stored.Checked
	Ledger  *ledger.Ledger
	Journal *journal.Journal

	OwnerOf func(ctx context.Context, repository string) owners.Owner // its DID is "" if it is a handle that can't be resolved
	// Published reports whether images of a repository that are found in storage are to
	// be published.
	Published func(repository string) (bool, error)
	// Purged reports whether a public repository is not published since it was purged, until
	// its next push.
	Purged func(repository string) (bool, error)
	// Forgotten reports whether a manifest has no records because its owner has had its data
	// deleted.
	Forgotten func(owner, digest string) (bool, error)
	// Append appends an event that has no request, with the bytes of its manifest and keys
	// for its records.
	Append func(ctx context.Context, e event.Event, manifest []byte, layers int) (seq uint64, err error)

	Ready  func() error // returns an error while nothing may be written
	Window int          // how many records its pending events may have; 0: 1000
	// Spare reports whether the account has enough points for some creates, and the pending
	// ones before them, without those that it keeps for pushes, and when it will have
	// otherwise; nil: it has no limit.
	Spare func(pending, creates int) (ok bool, at time.Time)
	// Forecast returns when the account will have had points for some creates; nil: it
	// has no limit.
	Forecast func(creates int) time.Time

	Now func() time.Time
	Log *slog.Logger
}

// A Backfill runs the job in the state.
type Backfill struct {
	Config
	began sink.Signal

	mu     sync.Mutex
	job    *Job               // nil: there was none, or it is not loaded yet
	cancel context.CancelFunc // ends the running attempt; nil: none
	speed  speed
}

// defaultWindow is five full commits.
const defaultWindow = 1000

// New returns a Backfill. Run continues the job in the state.
func New(cfg Config) (*Backfill, error) {
	if cfg.Window == 0 {
		cfg.Window = defaultWindow
	}
	b := &Backfill{Config: cfg}
	var err error
	b.job, err = load(cfg.State)
	return b, err
}

// Begin begins a job. It returns ErrRunning and the job that runs, if there is one.
func (b *Backfill) Begin(r Request) (Job, error) {
	if err := r.Validate(); err != nil {
		return Job{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.job != nil && b.job.Running() {
		return *b.job, ErrRunning
	}
	j := &Job{Request: r, Phase: Counting, Started: b.Now().UTC()}
	var batch state.Batch
	batch.DeleteRange(state.Prefix(state.Backfilled))
	j.put(&batch)
	if err := b.State.Commit(&batch, state.Sync); err != nil {
		return Job{}, fmt.Errorf("begin a backfill: %w", err)
	}
	b.job, b.speed = j, speed{}
	b.began.Send()
	return *j, nil
}

// Stop ends the job. Events that are in the journal already have their effect.
func (b *Backfill) Stop() (Job, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.job == nil {
		return Job{}, ErrNone
	}
	if b.job.Running() {
		if b.cancel != nil {
			b.cancel()
		}
		if err := b.end(Stopped); err != nil {
			return Job{}, err
		}
	}
	return *b.job, nil
}

// Status returns the job, or ErrNone.
func (b *Backfill) Status() (Job, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.job == nil {
		return Job{}, ErrNone
	}
	j := *b.job
	if !j.Running() && !j.DryRun {
		return j, nil
	}
	left := j.Creates - min(j.Creates, j.Records)
	if b.Forecast != nil {
		j.Points = left * pds.CreatePoints
	}
	j.Ends = b.ends(&j, left)
	return j, nil
}

// ends estimates when a job ends: as the points of the account, the rate of the request and
// the speed until now allow. The caller must hold mu.
func (b *Backfill) ends(j *Job, creates int64) time.Time {
	now := b.Now()
	if j.Phase == Counting {
		return time.Time{}
	}
	end := now
	if b.Forecast != nil {
		end = b.Forecast(int(creates))
	}
	left := float64(j.Missing - min(j.Missing, j.Recorded))
	perSecond := b.speed.perSecond(now)
	if j.Rate > 0 && (perSecond == 0 || j.Rate < perSecond) {
		perSecond = j.Rate
	}
	switch {
	case perSecond > 0:
		if at := now.Add(time.Duration(left / perSecond * float64(time.Second))); at.After(end) {
			end = at
		}
	case b.Forecast == nil:
		return time.Time{}
	}
	return end.UTC().Truncate(time.Second)
}

// end ends the job with a phase. The caller must hold mu.
func (b *Backfill) end(phase string) error {
	ended := *b.job
	ended.Phase, ended.Ended, ended.Waiting, ended.Error = phase, b.Now().UTC(), "", ""
	var batch state.Batch
	batch.DeleteRange(state.Prefix(state.Backfilled))
	ended.put(&batch)
	if err := b.State.Commit(&batch, state.Sync); err != nil {
		return fmt.Errorf("end the backfill: %w", err)
	}
	*b.job = ended
	return nil
}

// longestRetry limits the time between two attempts after errors.
const longestRetry = time.Minute

// Run runs jobs until ctx ends.
func (b *Backfill) Run(ctx context.Context) error {
	retry := time.Second
	for ctx.Err() == nil {
		began := b.began.Wait()
		attempt, job := b.begin(ctx)
		if job == nil {
			select {
			case <-began:
			case <-ctx.Done():
			}
			continue
		}
		err := (&run{Backfill: b, job: job}).run(attempt)
		b.attempted(job, err)
		if err == nil || attempt.Err() != nil {
			retry = time.Second
			continue
		}
		b.Log.Warn("the backfill continues later", "in", retry, "error", err)
		sink.Pause(attempt, retry)
		retry = min(2*retry, longestRetry)
	}
	return nil
}

// begin returns the context of an attempt, and its job; nil if none runs.
func (b *Backfill) begin(ctx context.Context) (context.Context, *Job) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.job == nil || !b.job.Running() {
		return ctx, nil
	}
	if b.cancel != nil {
		b.cancel()
	}
	ctx, b.cancel = context.WithCancel(ctx)
	return ctx, b.job
}

// attempted notes the error of an attempt.
func (b *Backfill) attempted(job *Job, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil && job.Running() && !errors.Is(err, context.Canceled) {
		job.Error = err.Error()
	}
}
