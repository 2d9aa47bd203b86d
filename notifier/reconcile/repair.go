package reconcile

import (
	"errors"
	"fmt"

	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/records"
	"github.com/tidings-dev/tidings/notifier/state"
)

// Phases of a repair: what is done until Step has nothing left to do. Then its last events
// are pending at the records sink.
const (
	RepairRebuild = "the ledger is rebuilt from the account's records"
	RepairStorage = "the registry's storage is compared with the ledger"
	RepairLedger  = "the ledger is compared with the registry's storage"
)

// ErrRepairing is returned by BeginRepair while a repair is requested or running.
var ErrRepairing = errors.New("a repair is running; `tidings status` shows it")

// BeginRepair lets the running process rebuild the ledger from the account's records and
// compare it with storage, as WantRebuild lets the next start do. The caller must hold all
// sinks between two of their steps: from then on none writes until the ledger is rebuilt. A
// purge that is pending is handled before, since a rebuilt entry does not name the repositories
// whose claims it removes.
func (r *Reconciler) BeginRepair() error {
	r.verifying.Lock()
	defer r.verifying.Unlock()
	if err := r.Ready(); err != nil {
		return err
	}
	phase, err := r.Repair()
	if err == nil && phase != "" {
		err = ErrRepairing
	}
	if err != nil {
		return err
	}
	purged, err := r.Purged.Last()
	if err == nil && r.Journal.Cursor(journal.Pushes, records.Name) < purged {
		err = fmt.Errorf("%w: a purge is pending", ErrBusy)
	}
	if err == nil {
		err = r.WantRebuild()
	}
	if err == nil {
		r.Log.Info("an operator asks for a repair")
		r.verified.Store(false)
	}
	return err
}

// Repair returns the phase of a repair that is requested or running, "" if there is none.
func (r *Reconciler) Repair() (phase string, err error) {
	if r.Account == nil || r.Storage == nil {
		return "", nil
	}
	if rebuild, err := state.Has(r.State, state.RebuildReason); rebuild || err != nil {
		return RepairRebuild, err
	}
	val, err := r.State.Get(state.ReconcilePhase)
	switch {
	case errors.Is(err, state.ErrNotFound):
		return "", nil
	case err != nil:
		return "", err
	case string(val) == phaseStorage:
		return RepairStorage, nil
	}
	return RepairLedger, nil
}
