package statsrecords

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/forgotten"
	"github.com/tidings-dev/tidings/notifier/state"
)

// Default and limits of Config.Interval.
const (
	DefaultInterval = 6 * time.Hour
	minInterval     = time.Minute
	maxInterval     = 30 * 24 * time.Hour
)

// ValidateInterval returns an error if a Config.Interval is out of range.
func ValidateInterval(d time.Duration) error {
	if d < minInterval || d > maxInterval {
		return fmt.Errorf("%s is out of range; it must be from 1m to 720h", d)
	}
	return nil
}

// An Account is the repo that the records are written to.
type Account interface {
	// Apply applies the writes in one commit, all or none. After a *repo.WriteError
	// none is applied. After any other error it is not known whether they are.
	Apply(ctx context.Context, writes []repo.Write, swap *cid.Cid) (repo.Result, error)
	// Get returns a record, or repo.ErrNotFound.
	Get(ctx context.Context, collection, rkey string) (cid.Cid, []byte, error)
	// List returns up to limit records of a collection in descending order of
	// their keys, with reverse in ascending order, and the cursor of the next page,
	// "" if there is none.
	List(ctx context.Context, collection, cursor string, limit int, reverse bool) (page []repo.Record, next string, err error)
}

// A Source has the counts that are published: of this registry, or the sum of all
// that share a Redis.
type Source interface {
	// Repositories lists every repository that was counted.
	Repositories(ctx context.Context) ([]counts.Totals, error)
}

// Config configures New. Account, Source, State and one of Owner and OwnerOf are required.
type Config struct {
	Account  Account
	Source   Source
	State    state.Store
	Owner    string                                                                // DID that the registry's own images belong to
	OwnerOf  func(ctx context.Context, repository string) (did string, known bool) // of one of the registry's repositories; nil: Owner
	Public   func(repository string) bool                                          // decides what may be published; nil: nothing is public
	Off      bool                                                                  // publishes nothing, but deletes the records of owners who ask for it
	Interval time.Duration                                                         // between the beginnings of two rounds; 0: DefaultInterval

	// Ready returns an error while nothing may be written to the account or the
	// state, or while Source is incomplete; nil: never.
	Ready func() error
	// Counted returns the sequence number of the last push event that Source has; nil: all.
	Counted func() uint64
	// Forgotten returns a channel that is closed when the data of another owner is to be
	// deleted; nil: that is noticed at the next round.
	Forgotten func() <-chan struct{}
	// Fit returns how many of the writes, from the first, the account has points for
	// now; nil: all.
	Fit func(writes []repo.Write) int

	Now     func() time.Time // nil: time.Now
	Metrics *Metrics         // nil: none
	Logger  *slog.Logger     // nil: silent
}

// setDefaults replaces zero values by what the fields say.
func (c *Config) setDefaults() {
	if c.Public == nil {
		c.Public = func(string) bool { return false }
	}
	if c.OwnerOf == nil {
		owner := c.Owner
		c.OwnerOf = func(context.Context, string) (string, bool) { return owner, true }
	}
	if c.Interval == 0 {
		c.Interval = DefaultInterval
	}
	if c.Ready == nil {
		c.Ready = func() error { return nil }
	}
	if c.Counted == nil {
		c.Counted = func() uint64 { return math.MaxUint64 }
	}
	if c.Forgotten == nil {
		c.Forgotten = func() <-chan struct{} { return nil }
	}
	if c.Fit == nil {
		c.Fit = func(writes []repo.Write) int { return len(writes) }
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// A Publisher publishes the counts. Run and Round must not be called at the same
// time.
type Publisher struct {
	cfg       Config
	log       *slog.Logger
	forgotten *forgotten.Store

	mu     sync.Mutex
	status Status
}

// Status is the state of the publication.
type Status struct {
	Last    time.Time // when the last complete round began; zero: none yet
	Waiting bool      // for points of the account, or until it may be written to
	Err     error     // of the last attempt; nil: it succeeded or is waiting
}

// New returns a Publisher. Run starts it.
func New(cfg Config) (*Publisher, error) {
	cfg.setDefaults()
	if err := ValidateInterval(cfg.Interval); err != nil {
		return nil, fmt.Errorf("interval of stats records: %w", err)
	}
	return &Publisher{cfg: cfg, log: cfg.Logger.With("component", "statsrecords"), forgotten: forgotten.New(cfg.State)}, nil
}

// Waits of Run.
const (
	firstRetry  = time.Minute // after an error; doubled for each further one
	longestWait = time.Hour   // after errors, and between two looks at the clock, which may jump
	pointsWait  = 10 * time.Minute
	readyWait   = time.Second
)

// Run publishes the counts at each interval until ctx ends. A nil Publisher publishes
// nothing.
func (p *Publisher) Run(ctx context.Context) error {
	if p == nil {
		return nil
	}
	retry := firstRetry
	for ctx.Err() == nil {
		forgotten := p.cfg.Forgotten()
		wait, err := p.next(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			retry = firstRetry
		default:
			wait, retry = retry, min(2*retry, longestWait)
			p.log.Warn("publishing counts failed", "retry_in", wait, "error", err)
		}
		select {
		case <-ctx.Done():
		case <-forgotten:
		case <-time.After(wait):
		}
	}
	return nil
}

// next works on a round if one is due, and returns how long to wait until the next
// call.
func (p *Publisher) next(ctx context.Context) (wait time.Duration, err error) {
	if err = p.forget(ctx); err != nil {
		p.ended(err)
	}
	if err == nil && p.cfg.Off {
		return longestWait, nil
	}
	if err == nil {
		wait, err = p.due()
	}
	if err == nil && wait > 0 {
		return min(wait, longestWait), nil
	}
	if err == nil {
		err = p.Round(ctx)
	}
	switch {
	case errors.Is(err, ErrNotReady), errors.Is(err, errUncounted):
		return readyWait, nil
	case errors.Is(err, ErrNoPoints):
		return pointsWait, nil
	}
	return 0, err
}

// due returns how long it is until the next round is due; 0 if it is, or if the last
// one has not ended.
func (p *Publisher) due() (time.Duration, error) {
	last, err := p.lastRound()
	if err != nil {
		return 0, err
	}
	now := p.cfg.Now()
	if !last.Done || last.Began.After(now) { // the clock was ahead
		return 0, nil
	}
	p.completed(last.Began)
	return max(0, last.Began.Add(p.cfg.Interval).Sub(now)), nil
}

// Status returns the state of the publication.
func (p *Publisher) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}

// completed notes when the last complete round began.
func (p *Publisher) completed(began time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status.Last = began
	p.cfg.Metrics.completed(began)
}

// ended notes the outcome of an attempt.
func (p *Publisher) ended(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status.Waiting = errors.Is(err, ErrNoPoints) || errors.Is(err, ErrNotReady) || errors.Is(err, errUncounted)
	if p.status.Err = nil; err != nil && !p.status.Waiting {
		p.status.Err = err
		p.cfg.Metrics.failed()
	}
}
