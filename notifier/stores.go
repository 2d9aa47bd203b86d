package notifier

import (
	"context"
	"errors"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/announce"
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
// compared with the ledger: see reconcile.go. If state and repo do not belong together,
// the ledger and the post history are rebuilt from the repo first: see rebuild.go. Both
// are noted in the state before they begin, so after a crash the next start continues.

// rebuildRequested is the value of state.RebuildReason if an operator asked for it.
const rebuildRequested = "asked"

// newestChecked is how many of the newest records are looked up in the state.
const newestChecked = 200

// storeNames identifies what the state belongs to.
type storeNames struct{ options, folder, accountFolder string }

// verifyStores makes sure that the stores belong together, and rebuilds the ledger if they
// do not.
func (n *Notifier) verifyStores(ctx context.Context) error {
	n.verifying.Lock()
	defer n.verifying.Unlock()
	if n.verified.Load() {
		return nil
	}
	for _, s := range n.sinks {
		if err := s.Confirm(ctx); err != nil {
			return err
		}
	}
	if n.account == nil {
		n.verified.Store(true)
		return nil
	}
	reason, err := n.mismatch(ctx)
	if err != nil {
		return fmt.Errorf("compare state and account: %w", err)
	}
	if reason != "" {
		n.log.Warn("the ledger is rebuilt from the account's records: " + reason)
		if err := n.rebuild(ctx); err != nil {
			return fmt.Errorf("rebuild ledger: %w", err)
		}
	}
	if err := n.completeUsage(ctx); err != nil {
		return fmt.Errorf("count the usage of owners: %w", err)
	}
	if err := n.noteAccount(ctx); err != nil {
		return err
	}
	n.verified.Store(true)
	n.progress.Send()
	return nil
}

var errNotVerified = errors.New("stores not compared yet")

// Ready returns an error while others must not write to the account: until the stores
// are known to belong together, and while the disk has too little free space.
func (n *Notifier) Ready() error {
	if !n.verified.Load() {
		return errNotVerified
	}
	return n.space()
}

// verifiedRevision is the repo's revision after the last batch, or "" until verifyStores has compared it with
// the noted one.
func (n *Notifier) verifiedRevision(ctx context.Context) string {
	if !n.verified.Load() {
		return ""
	}
	rev, err := n.account.Revision(ctx)
	if err != nil {
		return "" // the next batch notes it
	}
	return rev
}

// followRecords lets a journal that ends before the last event of the state continue
// after it, with another id. Events are lost then, so storage is compared with the
// ledger.
func (n *Notifier) followRecords() error {
	batched, err := records.LastBatched(n.state)
	if err != nil {
		return err
	}
	decided, err := announce.Decided(n.state)
	if err != nil {
		return err
	}
	taken, err := remote.LastTaken(n.state)
	if err != nil {
		return err
	}
	reached := max(batched, decided, taken, n.counter.Latest(uint8(journal.Pushes)))
	if reached <= n.journal.Status(journal.Pushes).Last {
		return nil
	}
	n.log.Warn("the journal is older than the state; events that only it had are lost, and the registry's storage is compared with the ledger")
	if err := n.requestReconcile(); err != nil {
		return err
	}
	return n.journal.AdvanceTo(journal.Pushes, reached)
}

// compareNames requests a reconciliation if the journal, the data folder or the options
// are others than at the last start. The new name and the request are committed
// together.
func (n *Notifier) compareNames() error {
	var b state.Batch
	for _, name := range []struct {
		key     []byte
		current string
		lost    bool // events may be lost if the name has changed
		message string
	}{
		{state.JournalID, n.journal.ID(), true, "the journal has another id than at the last start: it was lost, or is older than its readers"},
		{state.DataFolder, n.names.folder, true, "the data folder, or the journal in it, was copied or restored since the last start"},
		{state.PublicOptions, n.names.options, false, "the options public, owner or owners have changed since the last start"},
	} {
		before, err := n.state.Get(name.key)
		if err != nil && !errors.Is(err, state.ErrNotFound) {
			return err
		}
		if name.current == "" || err == nil && string(before) == name.current {
			continue
		}
		if err == nil {
			n.log.Warn(name.message + "; the registry's storage is compared with the ledger")
			b.Set(state.ReconcilePhase, []byte(phaseStorage))
			if name.lost {
				if err := n.counter.UsesLost(); err != nil {
					return err
				}
			}
		}
		b.Set(name.key, []byte(name.current))
	}
	return n.state.Commit(&b, state.Sync)
}

// noteAccount notes which repo the state belongs to, and its revision.
func (n *Notifier) noteAccount(ctx context.Context) error {
	rev, err := n.account.Rev(ctx)
	if err != nil {
		return err
	}
	var b state.Batch
	b.Set(state.AccountRevision, []byte(rev))
	if n.names.accountFolder != "" {
		b.Set(state.AccountFolder, []byte(n.names.accountFolder))
	}
	return n.state.Commit(&b, state.Sync)
}

// accountMoved reports whether the repo is known to be in another folder than before.
func (n *Notifier) accountMoved() (bool, error) {
	if n.names.accountFolder == "" {
		return false, nil
	}
	before, err := n.state.Get(state.AccountFolder)
	if errors.Is(err, state.ErrNotFound) {
		return false, nil
	}
	return string(before) != n.names.accountFolder, err
}

// WantRebuild requests that the next Run rebuilds the ledger from the account's records
// and compares it with storage.
func (n *Notifier) WantRebuild() error {
	return state.Set(n.state, state.RebuildReason, []byte(rebuildRequested), state.Sync)
}

// mismatch returns the reason why state and repo do not belong together, "" if they do.
func (n *Notifier) mismatch(ctx context.Context) (reason string, err error) {
	// If the repo can't be opened, List fails, and its revision is not valid.
	if _, _, err := n.account.List(ctx, lexicon.NSIDLayer, "", 1, false); err != nil {
		return "", err
	}
	switch requested, err := n.state.Get(state.RebuildReason); {
	case err == nil && string(requested) == rebuildRequested:
		return "`tidings reconcile` asks for it", nil
	case err == nil:
		return "an earlier rebuild was interrupted", nil
	case !errors.Is(err, state.ErrNotFound):
		return "", err
	}
	if moved, err := n.accountMoved(); err != nil {
		return "", err
	} else if moved {
		return "the account's repo was replaced or restored", nil
	}
	batched, err := records.LastBatched(n.state)
	if err != nil {
		return "", err
	}
	if n.journal.Cursor(journal.Pushes, records.Name) > batched {
		return "the state is older than the journal", nil
	}
	return n.revisionMismatch(ctx)
}

// revisionMismatch compares the repo's revision with the noted one and, if they differ,
// the repo's newest records with the state.
func (n *Notifier) revisionMismatch(ctx context.Context) (reason string, err error) {
	noted, err := n.state.Get(state.AccountRevision)
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return "", err
	}
	rev, err := n.account.Rev(ctx)
	if err != nil {
		return "", err
	}
	switch {
	case rev == string(noted):
		return "", nil
	case rev < string(noted):
		return "the account's repo is older than the state", nil
	}
	ignored := n.foreign
	if noted == nil { // the first start with this account, or after the state was lost
		ignored = func(uint) bool { return false }
	}
	now := event.TID(n.now().UnixMicro(), 1023)
	for _, below := range []string{"", now} { // keys can be ahead of the clock
		known, err := n.newestAreKnown(ctx, below, ignored)
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
func (n *Notifier) foreign(clockID uint) bool { return n.shared && clockID != n.journal.ClockID() }

// newestAreKnown reports whether the state knows the newest of our records and posts
// whose keys are below a key, or any if it is "", except for those whose clock id is
// ignored.
func (n *Notifier) newestAreKnown(ctx context.Context, below string, ignored func(clockID uint) bool) (bool, error) {
	layers, _, err := n.account.List(ctx, lexicon.NSIDLayer, below, newestChecked, false)
	if err != nil {
		return false, err
	}
	for _, r := range layers {
		l, ok := records.ReadLayer(r)
		if !ok || ignored(l.ClockID) {
			continue
		}
		e, found, err := n.ledger.Get(l.Owner, l.Manifest)
		if err != nil {
			return false, err
		}
		if !found || l.Micros <= e.First || l.Micros > e.First+int64(e.Records) {
			return false, nil
		}
	}
	posts, _, err := n.account.List(ctx, lexicon.NSIDPost, below, newestChecked, false)
	if err != nil {
		return false, err
	}
	for _, p := range posts {
		image, ok := announce.Origin(p)
		key, err := syntax.ParseTID(p.RKey)
		if !ok || err != nil || ignored(key.ClockID()) {
			continue
		}
		if known, err := n.posts.Has(image.Repository, image.Digest, p.RKey); err != nil || !known {
			return false, err
		}
	}
	return true, nil
}
