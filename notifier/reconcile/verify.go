package reconcile

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/announce"
	"github.com/tidings-dev/tidings/notifier/announce/decided"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/records"
	"github.com/tidings-dev/tidings/notifier/remote"
	"github.com/tidings-dev/tidings/notifier/state"
)

// Whether the stores belong together
//
// The journal, the state and the repo are three stores, and an operator can lose one or
// restore an older copy of it. This is detected at start, before anything is written:
//
//   - The state is older than the journal if the records sink's cursor in the journal is
//     beyond the last event that its batches in the state cover.
//   - The journal is older than the state if it ends before that event, or has another id
//     than at the last start. It then continues after the state's numbers: events are
//     lost.
//   - The repo is older than the state if its revision is older than the one that was
//     noted with the last batch.
//   - The repo may be older than the state, whatever its revision, if it is in another
//     folder than at the last start: it was created anew, imported, repaired or restored.
//   - All three may be older than storage if the data folder is another one than at the
//     last start: it was copied or restored.
//   - The state is older than the repo if one of the repo's newest records or posts of
//     ours is not known to the state. This is checked only if the revision is not the one
//     that was noted.
//
// If events were lost or the options that decide what is public have changed, storage is
// compared with the ledger: see storage.go. If state and repo do not belong together,
// the ledger and the post history are rebuilt from the repo first: see rebuild.go. Both
// are noted in the state before they begin, so after a crash the next start continues.

// Values of state.RebuildReason; another value is that of a rebuild that has begun.
const (
	rebuildRequested = "asked"    // an operator asked for it
	rebuildRestored  = "restored" // the data folder was copied or restored
)

// newestChecked is how many of the newest records are looked up in the state.
const newestChecked = 200

// Verify makes sure that the stores belong together, and rebuilds the ledger if they
// do not.
func (r *Reconciler) Verify(ctx context.Context) error {
	r.verifying.Lock()
	defer r.verifying.Unlock()
	if r.verified.Load() {
		return nil
	}
	err := r.verify(ctx)
	if err != nil {
		r.failed.Store(&err)
	}
	return err
}

func (r *Reconciler) verify(ctx context.Context) error {
	if err := r.Confirm(ctx); err != nil {
		return err
	}
	if r.Account == nil {
		r.verified.Store(true)
		return nil
	}
	reason, err := r.Mismatch(ctx)
	if err != nil {
		return fmt.Errorf("compare state and account: %w", err)
	}
	if reason != "" {
		r.Log.Warn("the ledger is rebuilt from the account's records: " + reason)
		if err := r.rebuild(ctx); err != nil {
			return fmt.Errorf("rebuild ledger: %w", err)
		}
	}
	if err := r.completeUsage(ctx); err != nil {
		return fmt.Errorf("count the usage of owners: %w", err)
	}
	r.LoadUsage(ctx)
	if err := r.noteAccount(ctx); err != nil {
		return err
	}
	r.verified.Store(true)
	r.Progress.Send()
	return nil
}

// Verified reports whether the stores are known to belong together.
func (r *Reconciler) Verified() bool { return r.verified.Load() }

// ErrNotVerified is returned by Ready until Verify has compared the stores.
var ErrNotVerified = errors.New("stores not compared yet")

// Ready returns an error while others must not write to the account: until the stores
// are known to belong together, and while the disk has too little free space. Until then it has
// the reason why the last Verify failed.
func (r *Reconciler) Ready() error {
	if r.verified.Load() {
		return r.Space()
	}
	if failed := r.failed.Load(); failed != nil {
		return fmt.Errorf("%w: %w", ErrNotVerified, *failed)
	}
	return ErrNotVerified
}

// Revision is the repo's revision after the last batch, or "" until Verify has compared it with
// the noted one.
func (r *Reconciler) Revision(ctx context.Context) string {
	if !r.verified.Load() {
		return ""
	}
	rev, err := r.Account.Revision(ctx)
	if err != nil {
		return "" // the next batch notes it
	}
	return rev
}

// FollowState lets a journal that ends before the last event of the state continue
// after it, with another id. Events are lost then, so storage is compared with the
// ledger.
func (r *Reconciler) FollowState() error {
	batched, err := records.LastBatched(r.State)
	if err != nil {
		return err
	}
	announced, err := decided.Read(r.State)
	if err != nil {
		return err
	}
	taken, err := remote.LastTaken(r.State)
	if err != nil {
		return err
	}
	lastPurged, err := r.Purged.Last()
	if err != nil {
		return err
	}
	reached := max(batched, announced.Last(), taken, lastPurged, r.Counter.Latest(uint8(journal.Pushes)))
	if reached <= r.Journal.Status(journal.Pushes).Last {
		return nil
	}
	r.Log.Warn("the journal is older than the state; events that only it had are lost, and the registry's storage is compared with the ledger")
	if err := r.Request(); err != nil {
		return err
	}
	return r.Journal.AdvanceTo(journal.Pushes, reached)
}

// CompareNames requests a reconciliation if the journal, the data folder or the options
// are others than at the last start. The new name and the request are committed
// together.
func (r *Reconciler) CompareNames() error {
	var b state.Batch
	for _, name := range []struct {
		key     []byte
		current string
		lost    bool // events may be lost if the name has changed
		message string
	}{
		{state.JournalID, r.Journal.ID(), true, "the journal has another id than at the last start: it was lost, or is older than its readers"},
		{state.DataFolder, r.DataFolder, true, "the data folder, or the journal in it, was copied or restored since the last start"},
		{state.PublicOptions, r.Options, false, "the options public, owner or owners have changed since the last start"},
	} {
		before, err := r.State.Get(name.key)
		if err != nil && !errors.Is(err, state.ErrNotFound) {
			return err
		}
		if name.current == "" || err == nil && string(before) == name.current {
			continue
		}
		if err == nil {
			r.Log.Warn(name.message + "; the registry's storage is compared with the ledger")
			b.Set(state.ReconcilePhase, []byte(phaseStorage))
			if bytes.Equal(name.key, state.DataFolder) && r.Account != nil && r.AccountFolder == "" {
				// An account elsewhere is newer than a restored state. That of the data folder
				// is compared with the state by accountMoved.
				b.Set(state.RebuildReason, []byte(rebuildRestored))
			}
			if name.lost {
				if err := r.Counter.UsesLost(); err != nil {
					return err
				}
			}
		}
		b.Set(name.key, []byte(name.current))
	}
	return r.State.Commit(&b, state.Sync)
}

// noteAccount notes which repo the state belongs to, and its revision.
func (r *Reconciler) noteAccount(ctx context.Context) error {
	rev, err := r.Account.Rev(ctx)
	if err != nil {
		return err
	}
	var b state.Batch
	b.Set(state.AccountRevision, []byte(rev))
	if r.AccountFolder != "" {
		b.Set(state.AccountFolder, []byte(r.AccountFolder))
	}
	return r.State.Commit(&b, state.Sync)
}

// accountMoved reports whether the repo is known to be in another folder than before.
func (r *Reconciler) accountMoved() (bool, error) {
	if r.AccountFolder == "" {
		return false, nil
	}
	before, err := r.State.Get(state.AccountFolder)
	if errors.Is(err, state.ErrNotFound) {
		return false, nil
	}
	return string(before) != r.AccountFolder, err
}

// WantRebuild requests that the next Run rebuilds the ledger from the account's records
// and compares it with storage.
func (r *Reconciler) WantRebuild() error {
	return state.Set(r.State, state.RebuildReason, []byte(rebuildRequested), state.Sync)
}

// Mismatch returns the reason why state and repo do not belong together, "" if they do.
func (r *Reconciler) Mismatch(ctx context.Context) (reason string, err error) {
	// If the repo can't be opened, List fails, and its revision is not valid.
	if _, _, err := r.Account.List(ctx, lexicon.NSIDLayer, "", 1, false); err != nil {
		return "", err
	}
	switch requested, err := r.State.Get(state.RebuildReason); {
	case err == nil && string(requested) == rebuildRequested:
		return "`tidings reconcile` asks for it", nil
	case err == nil && string(requested) == rebuildRestored:
		return "the data folder was copied or restored", nil
	case err == nil:
		return "an earlier rebuild was interrupted", nil
	case !errors.Is(err, state.ErrNotFound):
		return "", err
	}
	if moved, err := r.accountMoved(); err != nil {
		return "", err
	} else if moved {
		return "the account's repo was replaced or restored", nil
	}
	batched, err := records.LastBatched(r.State)
	if err != nil {
		return "", err
	}
	if r.Journal.Cursor(journal.Pushes, records.Name) > batched {
		return "the state is older than the journal", nil
	}
	return r.revisionMismatch(ctx)
}

// revisionMismatch compares the repo's revision with the noted one and, if they differ,
// the repo's newest records with the state.
func (r *Reconciler) revisionMismatch(ctx context.Context) (reason string, err error) {
	noted, err := r.State.Get(state.AccountRevision)
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return "", err
	}
	rev, err := r.Account.Rev(ctx)
	if err != nil {
		return "", err
	}
	switch {
	case rev == string(noted):
		return "", nil
	case rev < string(noted):
		return "the account's repo is older than the state", nil
	}
	ignored := r.foreign
	if noted == nil { // the first start with this account, or after the state was lost
		ignored = func(uint) bool { return false }
	}
	now := event.TID(r.Now().UnixMicro(), 1023)
	for _, below := range []string{"", now} { // keys can be ahead of the clock
		known, err := r.newestAreKnown(ctx, below, ignored)
		if err != nil {
			return "", err
		}
		if !known {
			return "the account has records that the state does not know", nil
		}
	}
	return "", nil
}

// foreign reports whether a key's clock id shows that another program has written the
// record. A key of this program that is from before a jump of the system clock can look
// foreign.
func (r *Reconciler) foreign(clockID uint) bool { return r.Shared && clockID != r.Journal.ClockID() }

// newestAreKnown reports whether the state knows the newest of our records and posts
// whose keys are below a key, or any if it is "", except for those whose clock id is
// ignored.
func (r *Reconciler) newestAreKnown(ctx context.Context, below string, ignored func(clockID uint) bool) (bool, error) {
	layers, _, err := r.Account.List(ctx, lexicon.NSIDLayer, below, newestChecked, false)
	if err != nil {
		return false, err
	}
	for _, layer := range layers {
		l, ok := records.ReadLayer(layer)
		if !ok || ignored(l.ClockID) {
			continue
		}
		e, found, err := r.Ledger.Get(l.Owner, l.Manifest)
		if err != nil {
			return false, err
		}
		if !found || !l.Within(e) {
			return false, nil
		}
	}
	posts, _, err := r.Account.List(ctx, lexicon.NSIDPost, below, newestChecked, false)
	if err != nil {
		return false, err
	}
	for _, p := range posts {
		image, ok := announce.Origin(p)
		key, err := syntax.ParseTID(p.RKey)
		if !ok || err != nil || ignored(key.ClockID()) {
			continue
		}
		if known, err := r.Posts.Has(image.Repository, image.Digest, p.RKey); err != nil || !known {
			return false, err
		}
	}
	return true, nil
}
