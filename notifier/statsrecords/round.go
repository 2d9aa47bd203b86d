package statsrecords

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/state"
)

var (
	// ErrNotReady: Config.Ready returned an error. The round has to be continued later.
	ErrNotReady = errors.New("account not ready")
	// ErrNoPoints: the account has no points left for the next write. The round has to
	// be continued later.
	ErrNoPoints = errors.New("no points left")

	errUncounted = errors.New("earlier pushes are not counted yet")
)

// maxWrites is how many writes a commit may have. So many of the longest records
// are less than 150 KiB of JSON, which every known PDS accepts.
const maxWrites = 200

// A round is the value of state.StatsRound.
type round struct {
	Began time.Time `json:"began"`
	Done  bool      `json:"done"` // all that differed when it began is published
}

// lastRound returns the last round, which may not be done; the zero time if there is
// none.
func (p *Publisher) lastRound() (r round, err error) {
	val, err := p.cfg.State.Get(state.StatsRound)
	if errors.Is(err, state.ErrNotFound) {
		return round{}, nil
	}
	if err == nil {
		err = json.Unmarshal(val, &r)
	}
	if err != nil {
		return r, fmt.Errorf("read round: %w", err)
	}
	return r, nil
}

func (p *Publisher) putRound(r round) error {
	val, err := json.Marshal(r)
	if err == nil {
		err = state.Set(p.cfg.State, state.StatsRound, val, state.Sync)
	}
	if err != nil {
		return fmt.Errorf("write round: %w", err)
	}
	return nil
}

// Round publishes all that differs from the records. It continues a round that was
// not completed and otherwise begins one, whether or not one is due.
func (p *Publisher) Round(ctx context.Context) error {
	err := p.forget(ctx)
	if err == nil {
		err = p.round(ctx)
	}
	p.ended(err)
	return err
}

func (p *Publisher) round(ctx context.Context) error {
	if err := p.ready(); err != nil {
		return err
	}
	r, err := p.begin(ctx)
	if err != nil {
		return err
	}
	differences, err := p.differences(ctx, r.Began)
	if err != nil {
		return cmp.Or(p.ready(), err) // Source may have become incomplete
	}
	for len(differences) > 0 {
		if err := p.ready(); err != nil {
			return err
		}
		n, err := p.publish(ctx, r.Began, differences[:min(len(differences), maxWrites)])
		if err != nil {
			return err
		}
		differences = differences[n:]
	}
	r.Done = true
	if err := p.putRound(r); err != nil {
		return err
	}
	p.completed(r.Began)
	return nil
}

// ready returns ErrNotReady with its reason while nothing may be published.
func (p *Publisher) ready() error {
	if err := p.cfg.Ready(); err != nil {
		return fmt.Errorf("%w: %w", ErrNotReady, err)
	}
	return nil
}

// begin returns the round that was begun and is not done, or begins one.
func (p *Publisher) begin(ctx context.Context) (round, error) {
	r, err := p.lastRound()
	if err != nil {
		return r, err
	}
	if r.Began.IsZero() {
		if err := p.readRows(ctx); err != nil {
			return r, fmt.Errorf("read stats records: %w", err)
		}
	}
	now := p.cfg.Now()
	if !r.Began.IsZero() && !r.Done && !r.Began.After(now) {
		return r, nil
	}
	r = round{Began: now.UTC().Truncate(time.Millisecond)} // the precision of times in records
	return r, p.putRound(r)
}

// A difference is a record that is to be written.
type difference struct {
	rkey   string
	name   string         // under which the repository is counted
	counts *lexicon.Stats // nil: there is to be no record
}

// differences compares the counts with the rows. Deletes are first.
func (p *Publisher) differences(ctx context.Context, began time.Time) ([]difference, error) {
	totals, err := p.cfg.Source.Repositories(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := p.rows()
	if err != nil {
		return nil, err
	}
	omitted, err := p.forgottenCounts()
	if err != nil {
		return nil, err
	}
	var grown []difference
	keys := make(map[string]string, len(totals)) // by name; "" for a repository that is to have no record
	for _, t := range totals {
		if keys[t.Name] = ""; !p.cfg.Public(t.Name) {
			continue
		}
		owner, repository, known := p.split(ctx, t.Name)
		if !known {
			delete(keys, t.Name) // its record stays as it is
			continue
		}
		counts := countsOf(t, owner, repository)
		rkey := lexicon.StatsKey(counts.OwnerDID, counts.Repository)
		keys[t.Name] = rkey
		if earlier, ok := omitted[rkey]; ok {
			counts = without(counts, earlier)
		}
		published := rows[rkey].Record
		if _, more := raise(published, counts); more && counts.PullCount+counts.PushCount > 0 && !p.within(began, published) {
			grown = append(grown, difference{rkey, t.Name, &counts})
		}
	}
	var unwanted []difference
	for rkey, row := range rows {
		if wanted, counted := keys[row.Name]; counted && wanted != rkey {
			unwanted = append(unwanted, difference{rkey, row.Name, nil})
		}
	}
	return append(unwanted, grown...), nil
}

// within reports whether a record was written in the round that began at a time. One
// with a time in the future was written while the clock was ahead.
func (p *Publisher) within(began time.Time, s lexicon.Stats) bool {
	at, err := time.Parse(time.RFC3339, s.UpdatedAt)
	return err == nil && !at.Before(began) && !at.After(p.cfg.Now())
}

// A step is a write with the row that stands for its result.
type step struct {
	difference
	write repo.Write
	row   *row // nil: there is to be none
}

// publish publishes the first of the differences, as many as the account has points
// for, and returns how many.
func (p *Publisher) publish(ctx context.Context, began time.Time, differences []difference) (int, error) {
	var b state.Batch
	var steps []step
	var writes []repo.Write
	n := 0
	for ; n < len(differences); n++ {
		d := differences[n]
		s, err := p.plan(ctx, began, d)
		if refused, ok := errors.AsType[*repo.WriteError](err); ok {
			p.refused(d, refused)
			continue
		}
		if err != nil {
			return 0, err
		}
		if s.write.Action == "" {
			putRow(&b, s)
			continue
		}
		if writes = append(writes, s.write); p.cfg.Fit(writes) < len(writes) {
			break
		}
		steps = append(steps, s)
	}
	if n == 0 {
		return 0, ErrNoPoints
	}
	if err := p.apply(ctx, &b, steps); err != nil {
		return 0, err
	}
	return n, p.cfg.State.Commit(&b, state.NoSync)
}

// apply sends the writes in one commit, without those that the account refuses, and
// adds the rows of those that were applied to the batch.
func (p *Publisher) apply(ctx context.Context, b *state.Batch, steps []step) error {
	for len(steps) > 0 {
		writes := make([]repo.Write, len(steps))
		for i, s := range steps {
			writes[i] = s.write
		}
		_, err := p.cfg.Account.Apply(ctx, writes, nil)
		if refused, ok := errors.AsType[*repo.WriteError](err); ok && refused.Index >= 0 && refused.Index < len(steps) {
			p.refused(steps[refused.Index].difference, refused)
			steps = slices.Delete(steps, refused.Index, refused.Index+1)
			continue
		}
		if err != nil {
			return fmt.Errorf("write %d stats records: %w", len(steps), err)
		}
		for _, s := range steps {
			putRow(b, s)
			p.cfg.Metrics.written(s.write.Action)
		}
		return nil
	}
	return nil
}

// refused reports a record that cannot be written. The next round tries it again.
func (p *Publisher) refused(d difference, err error) {
	p.cfg.Metrics.refused()
	p.log.Warn("a stats record was refused", "repository", d.name, "error", err)
}
