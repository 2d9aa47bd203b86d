package notifier

import (
	"context"

	"github.com/tidings-dev/tidings/notifier/reconcile"
)

func (n *Notifier) newReconciler(cfg *Config) *reconcile.Reconciler {
	return reconcile.New(reconcile.Config{
		Journal: n.journal, Clock: n.clock, State: n.state, Counter: n.counter, Ledger: n.ledger, Usage: n.usage, Quota: n.quota,
		Parked: n.parked, Posts: n.posts, Account: n.account, Storage: n.storage, Purged: n.purged, Confirm: n.confirmSinks,
		Owner: n.owner, OwnerOf: n.resolvedOwner, Local: n.claimIsLocal, Public: n.public, Shared: cfg.Shared,
		Versions: cfg.Announce != nil && !cfg.Notified,
		Options:  cfg.PublicOptions, DataFolder: cfg.DataFolder, AccountFolder: cfg.AccountFolder,
		Appended: n.noteAppended, Progress: &n.progress, Space: n.space, Now: n.now, Log: n.log,
	})
}

// Stores verifies and compares the stores.
func (n *Notifier) Stores() *reconcile.Reconciler { return n.stores }

// confirmSinks confirms the batches that a crash interrupted.
func (n *Notifier) confirmSinks(ctx context.Context) error {
	for _, s := range n.sinks {
		if err := s.Confirm(ctx); err != nil {
			return err
		}
	}
	return nil
}

// runReconciler finishes the requested reconciliation, if there is one, and those that are
// requested later.
func (n *Notifier) runReconciler(ctx context.Context) error {
	retry := n.runner.NewBackoff("reconcile")
	for ctx.Err() == nil {
		changed, requested := n.progress.Wait(), n.repairs.Wait()
		if !n.stores.Verified() {
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		done, err := n.stores.Step(ctx)
		if done {
			select {
			case <-requested:
			case <-ctx.Done():
			}
			continue
		}
		if err != nil {
			retry.Sleep(ctx, err)
			continue
		}
		retry.Reset()
	}
	return nil
}
