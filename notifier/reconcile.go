package notifier

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/ledger"
	"github.com/tidings-dev/tidings/notifier/parked"
	"github.com/tidings-dev/tidings/notifier/records"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/stored"
)

// How storage and ledger are reconciled
//
// A reconciliation is requested, by setting state.ReconcilePhase, when events may have
// been lost, when the ledger was rebuilt, and when the options that decide what is public
// have changed. It begins when the stores are known to belong together, and has two phases:
//
//   - phaseStorage goes through storage. A manifest of a public repository that the ledger
//     does not have, or has with another number of records, gets a push event; wrong
//     records get a forget event before it.
//   - phaseLedger goes through the ledger. A claim of a repository that does not have the
//     manifest gets a delete event. Claims of ledger.UnknownRepository get one, too: by now
//     the first phase has added claims for all repositories that were found. If others write
//     to the account as well, the records may be theirs: such a claim gets a disown event,
//     which leaves them.
//
// It writes no records itself. The events go through the journal, and the records sink
// handles them like any others, looking at storage again. They have no class and no tag,
// so they are neither counted as pushes nor announced, and repeating them has no effect:
// after a crash or an error the phase begins again.

const (
	phaseStorage = "walk"
	phaseLedger  = "sweep"
)

// reconcileAhead is how many events may be pending at the records sink before the
// reconciliation waits for it.
const reconcileAhead = 1000

// requestReconcile requests that the next Run compares storage with the ledger.
func (n *Notifier) requestReconcile() error {
	return state.Set(n.state, state.ReconcilePhase, []byte(phaseStorage), state.Sync)
}

// runReconciler finishes the requested reconciliation, if there is one.
func (n *Notifier) runReconciler(ctx context.Context) error {
	retry := n.newBackoff("reconcile")
	for ctx.Err() == nil {
		changed := n.progress.Wait()
		if !n.verified.Load() {
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		done, err := n.reconcilePhase(ctx)
		if done {
			return nil
		}
		if err != nil {
			retry.sleep(ctx, err)
			continue
		}
		retry.reset()
	}
	return nil
}

func (n *Notifier) reconcilePhase(ctx context.Context) (done bool, err error) {
	phase, err := n.state.Get(state.ReconcilePhase)
	if errors.Is(err, state.ErrNotFound) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if err := n.space(); err != nil {
		return false, err
	}
	n.log.Info("comparing the registry's storage with the ledger", "phase", string(phase))
	if string(phase) == phaseStorage {
		// Pending events can be of an earlier owner and would undo the result of the comparison.
		if err := n.waitForRecords(ctx, n.journal.Status(journal.Pushes).Last); err != nil {
			return false, err
		}
		if err := n.reconcileStorage(ctx); err != nil {
			return false, fmt.Errorf("reconcile: %w", err)
		}
		return false, state.Set(n.state, state.ReconcilePhase, []byte(phaseLedger), state.Sync)
	}
	if err := n.reconcileLedger(ctx); err != nil {
		return false, fmt.Errorf("reconcile: %w", err)
	}
	return false, state.Delete(n.state, state.ReconcilePhase, state.Sync)
}

// waitForRecords waits until the records sink has processed an event.
func (n *Notifier) waitForRecords(ctx context.Context, seq uint64) error {
	for n.journal.Cursor(journal.Pushes, records.Name) < seq {
		if pause(ctx, 100*time.Millisecond); ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// reconcileStorage appends a push event for each manifest of a public repository that the
// ledger does not have correctly.
func (n *Notifier) reconcileStorage(ctx context.Context) error {
	forgotten := map[string]bool{}
	return n.eachStored(ctx, func(m storedManifest) error {
		if err := pace(ctx); err != nil {
			return err
		}
		owner := n.resolvedOwner(ctx, m.repository)
		if owner.DID == "" && len(n.parked.Find(parked.Image(m.repository, m.digest))) > 0 {
			return nil // a push of it waits already
		}
		entry, found, err := n.ledger.Get(owner.DID, m.digest)
		if err != nil || found && entry.In(m.repository) && entry.Records == m.layers {
			return err
		}
		if id := owner.DID + " " + m.digest; found && entry.Records != m.layers && !forgotten[id] {
			forgotten[id] = true
			if err := n.appendInternal(ctx, event.Event{NotifyManifestInput: lexicon.NotifyManifestInput{
				UserDID: owner.DID, ManifestDigest: m.digest, Operation: event.OpForget,
			}}, nil, 0); err != nil {
				return err
			}
		}
		return n.appendInternal(ctx, event.Event{
			MediaType:   m.mediaType,
			OwnerHandle: owner.Handle,
			NotifyManifestInput: lexicon.NotifyManifestInput{
				Repository: m.repository, UserDID: owner.DID, ManifestDigest: m.digest, Operation: event.OpPush,
			},
		}, m.payload, m.layers)
	})
}

// A storedManifest is a manifest in storage that is to have records.
type storedManifest struct {
	repository, digest, mediaType string
	payload                       []byte
	layers                        int // number of its records
}

// eachStored calls visit with each manifest of a public repository that is to have
// records.
func (n *Notifier) eachStored(ctx context.Context, visit func(storedManifest) error) error {
	return n.storage.Repositories(ctx, func(repository string) error {
		if !n.public(repository) {
			return nil
		}
		return n.storage.Manifests(ctx, repository, func(digest string) error {
			mediaType, payload, err := n.storage.Manifest(ctx, repository, digest)
			if errors.Is(err, stored.ErrNotStored) || errors.Is(err, stored.ErrUnreadable) {
				return nil // deleted meanwhile, or damaged
			}
			if err != nil {
				return err
			}
			info, err := event.ReadManifest(mediaType, payload)
			if err != nil {
				return nil
			}
			layers, _ := event.LayersOf(&info)
			if len(layers) == 0 {
				return nil
			}
			return visit(storedManifest{repository, digest, mediaType, payload, len(layers)})
		})
	})
}

// reconcileLedger appends a delete event for each claim in the ledger whose repository
// does not have the manifest, whoever its owner is. Claims of images that other registries
// report are left, since their storage can't be asked.
func (n *Notifier) reconcileLedger(ctx context.Context) error {
	for position, first := []byte(nil), true; first || position != nil; first = false {
		// The ledger is read in pages, so that no scan is open while events are pending.
		page, next, err := n.ledger.Page(position, reconcileAhead)
		if err != nil {
			return err
		}
		for _, m := range page {
			if err := n.reconcileEntry(ctx, m); err != nil {
				return err
			}
		}
		position = next
	}
	return nil
}

func (n *Notifier) reconcileEntry(ctx context.Context, m ledger.Manifest) error {
	for _, repository := range m.Repositories {
		if !n.claimIsLocal(m.Owner, repository) {
			continue
		}
		if repository != ledger.UnknownRepository {
			has, err := n.storage.Has(ctx, repository, m.Digest)
			if has || errors.Is(err, stored.ErrUnreadable) {
				continue
			}
			if err != nil {
				return err
			}
		}
		input := lexicon.NotifyManifestInput{Repository: repository, UserDID: m.Owner, ManifestDigest: m.Digest, Operation: event.OpDelete}
		if repository == ledger.UnknownRepository && n.foreign(m.ClockID) {
			input.Repository, input.Operation = "", event.OpDisown
		}
		err := n.appendInternal(ctx, event.Event{NotifyManifestInput: input}, nil, 0)
		if err != nil {
			return err
		}
	}
	return nil
}

// appendInternal records an event that has no request. It waits while many events are
// pending.
func (n *Notifier) appendInternal(ctx context.Context, e event.Event, manifest []byte, layers int) error {
	if last := n.journal.Status(journal.Pushes).Last; last > reconcileAhead {
		if err := n.waitForRecords(ctx, last-reconcileAhead); err != nil {
			return err
		}
	}
	e.Version, e.TIDs = event.Version, layers
	e.Time, e.TID, e.ClockID = n.clock.Reserve(1 + layers)
	e.Time = e.Time.UTC()
	var payload []byte
	if manifest != nil {
		payload = e.EncodePushed(manifest)
	} else {
		var err error
		if payload, err = e.Encode(); err != nil {
			return err
		}
	}
	seq, err := n.journal.Append(ctx, journal.Pushes, uint64(e.TID)+uint64(e.TIDs), payload)
	if err == nil {
		n.noteFreeing(seq, &e)
	}
	return err
}
