package backfill

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/internal/glob"
	"github.com/tidings-dev/tidings/notifier/state"
)

// A Request describes a job.
type Request struct {
	Repository string  `json:"repository,omitempty"` // a glob; "": all public repositories
	Rate       float64 `json:"perSecond,omitempty"`  // manifests; 0: as fast as the account allows
	DryRun     bool    `json:"dryRun,omitempty"`     // only counts
}

// maxRate is the highest Rate that is a limit at all.
const maxRate = 1e6

// Validate returns an error if a request is invalid.
func (r *Request) Validate() error {
	if r.Repository != "" {
		if err := glob.ValidateRepository(r.Repository); err != nil {
			return fmt.Errorf("repository: %w", err)
		}
	}
	if r.Rate < 0 || r.Rate > maxRate || r.Rate != r.Rate {
		return fmt.Errorf("rate: %v manifests per second are out of range; it must be above 0 and at most %d", r.Rate, int(maxRate))
	}
	return nil
}

// Phases of a job.
const (
	Counting  = "counting"  // the manifests without records
	Recording = "recording" // appending their events
	Finishing = "finishing" // waiting for the records sink
	Done      = "done"
	Stopped   = "stopped" // by the operator
)

// A Job is a backfill and its progress.
type Job struct {
	Request
	Phase   string    `json:"phase"`
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"`

	Manifests int64 `json:"manifests"` // that were looked at in the phase counting
	Missing   int64 `json:"missing"`   // of these, without records
	Creates   int64 `json:"creates"`   // records that they need
	Unowned   int64 `json:"unowned"`   // of these, left out since the handle of their owner can't be resolved
	Purged    int64 `json:"purged"`    // repositories, left out until their next push

	Recorded int64  `json:"recorded"`          // manifests whose event is in the journal
	Records  int64  `json:"records"`           // that these events have written or will write
	Last     uint64 `json:"last,omitempty"`    // sequence number of the last event
	Journal  string `json:"journal,omitempty"` // id of the journal that it is in

	// Of a job that runs, not durable:
	Points  int64     `json:"points,omitempty"`  // that the records still to be written cost
	Ends    time.Time `json:"ends,omitzero"`     // estimate; missing: not known yet
	Waiting string    `json:"waiting,omitempty"` // why nothing is recorded at the moment
	Error   string    `json:"error,omitempty"`   // of the last attempt, which is repeated
}

// Running reports whether the job has something left to do.
func (j *Job) Running() bool { return j.Phase != Done && j.Phase != Stopped }

// load returns the job in the state; nil if there was none.
func load(db state.Store) (*Job, error) {
	val, err := db.Get(state.BackfillJob)
	if errors.Is(err, state.ErrNotFound) {
		return nil, nil
	}
	var j Job
	if err == nil {
		err = json.Unmarshal(val, &j)
	}
	if err != nil {
		return nil, fmt.Errorf("read the backfill: %w", err)
	}
	return &j, nil
}

// put adds the job to a batch.
func (j *Job) put(b *state.Batch) {
	durable := *j
	durable.Points, durable.Ends, durable.Waiting, durable.Error = 0, time.Time{}, "", ""
	val, err := json.Marshal(durable)
	if err != nil {
		panic(err) // Rate is finite, and nothing else can't be encoded
	}
	b.Set(state.BackfillJob, val)
}

// repositoryKey is the key of the row of a repository whose events are all in the journal.
func repositoryKey(repository string) []byte { return []byte(state.Backfilled + repository) }
