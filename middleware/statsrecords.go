package middleware

import (
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/atproto/pds"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/internal/clock"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/statsrecords"
)

// openStatsRecords creates the publisher of counts if there is an account. If the options
// turn it off, it only deletes the records of owners who ask a hold for it.
func (r *runtime) openStatsRecords() error {
	off := r.options.Stats.Records == 0
	if r.writes == nil || off && r.options.Hold == nil {
		return nil
	}
	metrics := statsrecords.NewMetrics()
	cfg := statsrecords.Config{
		Account:  r.writes,
		Source:   r.counts(),
		State:    state.OnPebble(r.state),
		OwnerOf:  r.statsOwner(),
		Public:   r.publishesCounts,
		Off:      off,
		Interval: time.Duration(r.options.Stats.Records),
		Ready:    r.readyForStats,
		Now:      clock.Now,
		Metrics:  metrics,
		Logger:   r.log,

		Counted: r.notifier.Counted, Forgotten: r.notifier.Forgotten,
	}
	if r.pds != nil {
		w := r.pds.At(pds.Background)
		cfg.Account, cfg.Fit = w, w.Fit
	}
	publisher, err := statsrecords.New(cfg)
	if err != nil {
		return err
	}
	if !off {
		r.register(metrics.Collectors()...)
	}
	r.stats = publisher
	return nil
}

// readyForStats returns an error while counts must not be published: while the account
// is on another host, while Redis does not have all counts, and while the notifier says
// so.
func (r *runtime) readyForStats() error {
	if h := r.options.Hold; h != nil && h.MovedTo != nil {
		return repo.ErrDeactivated
	}
	if s := r.counter.Status(); s.Redis && s.Reason != "" {
		return fmt.Errorf("the sum is incomplete: %s", s.Reason)
	}
	return r.notifier.Stores().Ready()
}

// publishesCounts reports whether the counts of a repository are published. A mark that
// cannot be read does not unpublish them.
func (r *runtime) publishesCounts(repository string) bool {
	published, err := r.notifier.Stores().Published(repository)
	return published || err != nil && r.notifier.Public(repository)
}

// StatsHealth is the state of the stats records in the health report.
type StatsHealth struct {
	Status string    `json:"status"`        // "ok", "waiting" (nothing may be written at the moment) or "failing" (the log has the reason)
	Last   time.Time `json:"last,omitzero"` // when the last complete round began
}

// addStats adds the state of the stats records. A round that fails degrades the health.
func (h *Health) addStats(s statsrecords.Status) {
	h.Stats = &StatsHealth{Status: statusOK, Last: s.Last}
	switch {
	case s.Err != nil:
		h.Stats.Status, h.Status = "failing", statusDegraded
	case s.Waiting:
		h.Stats.Status = "waiting"
	}
}
