package reconcile

import (
	"context"
	"errors"

	"github.com/tidings-dev/tidings/notifier/ledger"
	"github.com/tidings-dev/tidings/notifier/records"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/usage"
)

// How the usage of an earlier version's ledger is counted
//
// Earlier versions kept no usage. The first start of this one reads the account's layer
// records once and adds those of each ledger entry, before the records sink handles events.
// Each commit also has the key up to which records were read, in state.UsageBuilt, so after
// a crash the next start continues there. A manifest that counts already, because the sink
// confirmed a batch before, is not added again. When all records are read, the value is
// usageComplete, and from then on the sink keeps usage and ledger equal.

// usageComplete is the value of state.UsageBuilt once the usage is that of the ledger. It is
// not a record key.
const usageComplete = "complete"

// completeUsage counts the manifests that the ledger had before there was usage.
func (r *Reconciler) completeUsage(ctx context.Context) error {
	read, err := r.State.Get(state.UsageBuilt)
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return err
	}
	if string(read) == usageComplete {
		return nil
	}
	manifests, err := r.countUsage(ctx, r.Usage, string(read), func(b *state.Batch, read string) { b.Set(state.UsageBuilt, []byte(read)) }, nil)
	if err != nil {
		return err
	}
	r.Log.Info("the usage of all owners is counted", "manifests", manifests)
	return state.Set(r.State, state.UsageBuilt, []byte(usageComplete), state.Sync)
}

// LoadUsage makes quotas apply, unless the usage is not complete. Verify does so once it is.
func (r *Reconciler) LoadUsage(ctx context.Context) {
	if err := r.Quota.Load(ctx, r.hasUsage); err != nil && ctx.Err() == nil {
		r.Log.Error("the usage of owners can't be read; no push is refused because of a quota until the next start", "error", err)
	}
}

// hasUsage reports whether the usage is complete.
func (r *Reconciler) hasUsage() (bool, error) {
	if rebuild, err := state.Has(r.State, state.RebuildReason); rebuild || err != nil {
		return false, err
	}
	read, err := r.State.Get(state.UsageBuilt)
	if errors.Is(err, state.ErrNotFound) {
		return false, nil
	}
	return string(read) == usageComplete, err
}

// RecountUsage counts the usage of all owners again, from the ledger and the account's
// records, corrects it, and calls visit with each row that was different. With dryRun it
// corrects nothing. It must be called when no sink runs. A batch that a crash interrupted can
// be the cause of differences; the next start finishes it. progress, if not nil, is called
// with how many manifests were counted.
func (r *Reconciler) RecountUsage(ctx context.Context, dryRun bool, progress func(manifests int64), visit func(usage.Difference) error) error {
	recount := usage.NewRecount(r.State)
	if err := r.clearUsage(recount); err != nil { // of a recount that was interrupted
		return err
	}
	_, err := r.countUsage(ctx, recount, "", func(*state.Batch, string) {}, progress)
	if err == nil {
		err = r.Usage.Correct(ctx, recount, dryRun, visit)
	}
	if err == nil && !dryRun {
		err = state.Set(r.State, state.UsageBuilt, []byte(usageComplete), state.Sync)
	}
	return errors.Join(err, r.clearUsage(recount))
}

func (r *Reconciler) clearUsage(t *usage.Table) error {
	var b state.Batch
	t.Clear(&b)
	return r.State.Commit(&b, state.Sync)
}

// countUsage adds the manifests of the ledger to a table, with the layers of the account's
// records after a key. Each commit has what note adds for the last key that was read.
func (r *Reconciler) countUsage(ctx context.Context, t *usage.Table, after string, note func(b *state.Batch, read string), progress func(manifests int64)) (manifests int, err error) {
	var b state.Batch
	err = records.EachWritten(ctx, r.Account, after, func(push []records.Layer) error {
		first := push[0]
		entry, found, err := r.Ledger.Get(first.Owner, first.Manifest)
		if err != nil || !found || !first.In(entry) {
			return err
		}
		if _, err := t.Add(&b, first.Owner, first.Manifest, records.UsageOf(push[:within(push, entry)])); err != nil {
			return err
		}
		manifests++
		if progress != nil {
			progress(int64(manifests))
		}
		if manifests%rebuildBatch != 0 {
			return nil
		}
		note(&b, push[len(push)-1].RKey)
		if err := r.State.Commit(&b, state.NoSync); err != nil {
			return err
		}
		b = state.Batch{}
		return sink.Pace(ctx)
	})
	if err != nil {
		return manifests, err
	}
	return manifests, r.State.Commit(&b, state.Sync)
}

// within is how many of the records, from the first, an entry has.
func within(push []records.Layer, e ledger.Entry) int {
	for i := range push {
		if !push[i].In(e) {
			return i
		}
	}
	return len(push)
}
