package reconcile

import (
	"errors"

	"github.com/tidings-dev/tidings/notifier/state"
)

// Phases of a repair: what is done until Step has nothing left to do. Then its last events
// are pending at the records sink.
const (
	RepairRebuild = "the ledger is rebuilt from the account's records"
	RepairStorage = "the registry's storage is compared with the ledger"
	RepairLedger  = "the ledger is compared with the registry's storage"
)

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
