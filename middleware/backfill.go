package middleware

import (
	"time"

	"github.com/tidings-dev/tidings/internal/clock"
	"github.com/tidings-dev/tidings/notifier/backfill"
	"github.com/tidings-dev/tidings/notifier/forgotten"
)

// backfillWindow is how many records a backfill may have pending at an account on another
// PDS: those of a commit, so that a push waits for one at most.
const backfillWindow = 200

// openBackfill continues the backfill that a restart has interrupted.
func (r *runtime) openBackfill() error {
	if r.writes == nil || r.storage() == nil {
		return nil
	}
	s := r.notifier.Stores()
	cfg := backfill.Config{
		State: s.State, Storage: s.Storage, Ledger: s.Ledger, Journal: s.Journal, OwnerOf: s.OwnerOf, Published: s.Published, Purged: s.LeftOut, Forgotten: forgotten.New(s.State).Marked,
		Append: s.Append, Ready: s.Ready, Now: clock.Now, Log: r.log.With("component", "backfill"),
	}
	if r.pds != nil {
		cfg.Window = backfillWindow
		cfg.Spare = func(pending, creates int) (bool, time.Time) { return r.pds.Spare(pending, creates) }
		cfg.Forecast = r.pds.ForecastSpare
	}
	b, err := backfill.New(cfg)
	if err != nil {
		return err
	}
	r.backfill, r.records = b, s
	r.background(b.Run)
	return nil
}
