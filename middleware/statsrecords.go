package middleware

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/internal/clock"
	"github.com/tidings-dev/tidings/notifier/delivery"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/statsrecords"
)

// openStatsRecords creates the publisher of counts if there is an account and the
// options do not turn it off.
func (r *runtime) openStatsRecords() error {
	if r.writes == nil || r.options.Stats.Records == 0 {
		return nil
	}
	metrics := statsrecords.NewMetrics()
	publisher, err := statsrecords.New(statsrecords.Config{
		Account:  statsAccount{r.writes},
		Source:   r.counts(),
		State:    state.OnPebble(r.state),
		Owner:    cmp.Or(r.options.Owner, r.account),
		Public:   r.notifier.Public,
		Interval: time.Duration(r.options.Stats.Records),
		Ready:    r.readyForStats,
		Now:      clock.Now,
		Metrics:  metrics,
		Logger:   r.log,
	})
	if err != nil {
		return err
	}
	r.register(metrics.Collectors()...)
	r.stats = publisher
	return nil
}

// readyForStats returns an error while counts must not be published: while the notifier
// says so, and while Redis does not have all of them.
func (r *runtime) readyForStats() error {
	if s := r.counter.Status(); s.Redis && s.Reason != "" {
		return fmt.Errorf("the sum is incomplete: %s", s.Reason)
	}
	return r.notifier.Ready()
}

// statsAccount is a Publisher whose reads take a context.
type statsAccount struct{ delivery.Publisher }

func (a statsAccount) Get(_ context.Context, collection, rkey string) (cid.Cid, []byte, error) {
	return a.Publisher.Get(collection, rkey)
}

func (a statsAccount) List(_ context.Context, collection, cursor string, limit int, reverse bool) ([]repo.Record, string, error) {
	return a.Publisher.List(collection, cursor, limit, reverse)
}

// statsHealth is the state of the stats records in the health report.
type statsHealth struct {
	Status string    `json:"status"`        // "ok", "waiting" (nothing may be written at the moment) or "failing" (the log has the reason)
	Last   time.Time `json:"last,omitzero"` // when the last complete round began
}

// addStats adds the state of the stats records. A round that fails degrades the health.
func (h *health) addStats(s statsrecords.Status) {
	h.Stats = &statsHealth{Status: statusOK, Last: s.Last}
	switch {
	case s.Err != nil:
		h.Stats.Status, h.Status = "failing", statusDegraded
	case s.Waiting:
		h.Stats.Status = "waiting"
	}
}
