package reconcile

import (
	"context"
	"errors"
	"fmt"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/forgotten"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/ledger"
	"github.com/tidings-dev/tidings/notifier/parked"
	"github.com/tidings-dev/tidings/notifier/sink"
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
//     which leaves them. Then it goes through the announced versions; see versions.go.
//
// It writes no records itself. The events go through the journal, and the records sink
// handles them like any others, looking at storage again. They have no class and no tag,
// so they are neither counted as pushes nor announced, and repeating them has no effect:
// after a crash or an error the phase begins again.

const (
	phaseStorage = "walk"
	phaseLedger  = "sweep"
)

// Request requests that the next Run compares storage with the ledger.
func (r *Reconciler) Request() error {
	return state.Set(r.State, state.ReconcilePhase, []byte(phaseStorage), state.Sync)
}

// Step runs the next phase of the requested reconciliation. It returns true if there is
// none. The caller must wait until Verified.
func (r *Reconciler) Step(ctx context.Context) (done bool, err error) {
	phase, err := r.State.Get(state.ReconcilePhase)
	if errors.Is(err, state.ErrNotFound) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if err := r.Space(); err != nil {
		return false, err
	}
	r.Log.Info("comparing the registry's storage with the ledger", "phase", string(phase))
	if string(phase) == phaseStorage {
		// Pending events can be of an earlier owner and would undo the result of the comparison.
		if err := r.waitForRecords(ctx, r.Journal.Status(journal.Pushes).Last); err != nil {
			return false, err
		}
		if err := r.reconcileStorage(ctx); err != nil {
			return false, fmt.Errorf("reconcile: %w", err)
		}
		return false, state.Set(r.State, state.ReconcilePhase, []byte(phaseLedger), state.Sync)
	}
	err = r.reconcileLedger(ctx)
	if err == nil {
		err = r.reconcileVersions(ctx)
	}
	if err != nil {
		return false, fmt.Errorf("reconcile: %w", err)
	}
	return false, state.Delete(r.State, state.ReconcilePhase, state.Sync)
}

// reconcileStorage appends a push event for each manifest of a public repository that the
// ledger does not have correctly.
func (r *Reconciler) reconcileStorage(ctx context.Context) error {
	forgotten := map[string]bool{}
	return r.eachStored(ctx, func(m storedManifest) error {
		if err := sink.Pace(ctx); err != nil {
			return err
		}
		owner := r.OwnerOf(ctx, m.repository)
		if owner.DID == "" && len(r.Parked.Find(parked.Image(m.repository, m.digest))) > 0 {
			return nil // a push of it waits already
		}
		entry, found, err := r.Ledger.Get(owner.DID, m.digest)
		if err != nil || found && entry.In(m.repository) && entry.Records == m.layers {
			return err
		}
		if id := owner.DID + " " + m.digest; found && entry.Records != m.layers && !forgotten[id] {
			forgotten[id] = true
			if err := r.appendPaced(ctx, event.Event{NotifyManifestInput: lexicon.NotifyManifestInput{
				UserDID: owner.DID, ManifestDigest: m.digest, Operation: event.OpForget,
			}}, nil, 0); err != nil {
				return err
			}
		}
		return r.appendPaced(ctx, event.Event{
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
func (r *Reconciler) eachStored(ctx context.Context, visit func(storedManifest) error) error {
	return r.Storage.Repositories(ctx, func(repository string) error {
		if published, err := r.Published(repository); !published || err != nil {
			return err
		}
		return r.Storage.Manifests(ctx, repository, func(digest string) error {
			mediaType, payload, err := r.Storage.Manifest(ctx, repository, digest)
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
			if removed, err := r.isRemoved(ctx, repository, digest); removed || err != nil {
				return err
			}
			return visit(storedManifest{repository, digest, mediaType, payload, len(layers)})
		})
	})
}

// isRemoved reports whether a manifest has no records because of a purge of its repository, or
// because its owner has had its data deleted.
func (r *Reconciler) isRemoved(ctx context.Context, repository, digest string) (bool, error) {
	if purged, err := r.Purged.ImageMarked(new(state.Batch), repository, digest); purged || err != nil {
		return purged, err
	}
	return forgotten.New(r.State).Marked(r.OwnerOf(ctx, repository).DID, digest)
}

// reconcileLedger appends a delete event for each claim in the ledger whose repository
// does not have the manifest, whoever its owner is. Claims of images that other registries
// report are left, since their storage can't be asked.
func (r *Reconciler) reconcileLedger(ctx context.Context) error {
	for position, first := []byte(nil), true; first || position != nil; first = false {
		// The ledger is read in pages, so that no scan is open while events are pending.
		page, next, err := r.Ledger.Page(position, reconcileAhead)
		if err != nil {
			return err
		}
		for _, m := range page {
			if err := r.reconcileEntry(ctx, m); err != nil {
				return err
			}
		}
		position = next
	}
	return nil
}

func (r *Reconciler) reconcileEntry(ctx context.Context, m ledger.Manifest) error {
	for _, repository := range m.Repositories {
		if !r.Local(m.Owner, repository) {
			continue
		}
		if repository != ledger.UnknownRepository {
			has, err := r.Storage.Has(ctx, repository, m.Digest)
			if has || errors.Is(err, stored.ErrUnreadable) {
				continue
			}
			if err != nil {
				return err
			}
		}
		input := lexicon.NotifyManifestInput{Repository: repository, UserDID: m.Owner, ManifestDigest: m.Digest, Operation: event.OpDelete}
		if repository == ledger.UnknownRepository && r.foreign(m.ClockID) {
			input.Repository, input.Operation = "", event.OpDisown
		}
		err := r.appendPaced(ctx, event.Event{NotifyManifestInput: input}, nil, 0)
		if err != nil {
			return err
		}
	}
	return nil
}
