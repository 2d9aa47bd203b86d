package notifier

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/ledger"
	"github.com/tidings-dev/tidings/notifier/state"
)

// reconcile compares the registry's storage with the ledger after one of the
// stores was found to be behind another. It writes no records: for each
// difference it puts an event into the journal, and the records sink does what it
// does for any push or delete. These events count nothing and announce nothing.
// Interrupted, it begins again at its phase.

// reconcileKey holds the phase of a reconciliation that is not done.
var reconcileKey = []byte("b/reconcile")

const (
	phaseWalk  = "walk"  // storage: what has no records gets some
	phaseSweep = "sweep" // the ledger: what is not in storage goes
)

// reconcileAhead is how many events may be pending at the records sink before
// reconcile waits.
const reconcileAhead = 1000

// WantReconcile lets the next Run compare storage with the ledger.
func (n *Notifier) WantReconcile() error {
	return state.Set(n.State, reconcileKey, []byte(phaseWalk), state.Sync)
}

// reconcile does what is left of a reconciliation, if there is one, once the
// ledger can be trusted.
func (n *Notifier) reconcile(ctx context.Context) error {
	wait := n.newBackoff("reconcile")
	for ctx.Err() == nil {
		changed := n.results.listen()
		if !n.proven.Load() {
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
			wait.sleep(ctx, err)
			continue
		}
		wait.reset()
	}
	return nil
}

func (n *Notifier) reconcilePhase(ctx context.Context) (done bool, err error) {
	phase, err := n.State.Get(reconcileKey)
	if errors.Is(err, state.ErrNotFound) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if err := n.Space(); err != nil {
		return false, err
	}
	n.log.Info("comparing the registry's storage with the ledger", "phase", string(phase))
	if string(phase) == phaseWalk {
		// What is pending can be of an earlier owner, and would undo what is compared.
		if err := n.recordsReach(ctx, n.Journal.Status(journal.Pushes).Last); err != nil {
			return false, err
		}
		if err := n.walk(ctx); err != nil {
			return false, fmt.Errorf("reconcile: %w", err)
		}
		return false, state.Set(n.State, reconcileKey, []byte(phaseSweep), state.Sync)
	}
	if err := n.sweep(ctx); err != nil {
		return false, fmt.Errorf("reconcile: %w", err)
	}
	return false, state.Delete(n.State, reconcileKey, state.Sync)
}

// recordsReach waits until the records sink has passed an event.
func (n *Notifier) recordsReach(ctx context.Context, seq uint64) error {
	for n.Journal.Cursor(journal.Pushes, recordsName) < seq {
		if pause(ctx, 100*time.Millisecond); ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// walk asks for the records of each manifest of a public repository that the
// ledger does not have as it should be.
func (n *Notifier) walk(ctx context.Context) error {
	forgotten := map[string]bool{}
	return n.eachStored(ctx, func(m storedManifest) error {
		if err := pace(ctx); err != nil {
			return err
		}
		entry, found, err := n.ledger.Get(n.Owner, m.digest)
		if err != nil || found && entry.In(m.repository) && entry.Records == m.layers {
			return err
		}
		if found && entry.Records != m.layers && !forgotten[m.digest] {
			forgotten[m.digest] = true
			if err := n.inform(ctx, Event{NotifyManifestInput: lexicon.NotifyManifestInput{ManifestDigest: m.digest, Operation: opForget}}, nil, 0); err != nil {
				return err
			}
		}
		return n.inform(ctx, Event{
			MediaType: m.mediaType,
			NotifyManifestInput: lexicon.NotifyManifestInput{
				Repository: m.repository, ManifestDigest: m.digest, Operation: opPush,
			},
		}, m.payload, m.layers)
	})
}

// storedManifest is a manifest in the registry's storage that gets records.
type storedManifest struct {
	repository, digest, mediaType string
	payload                       []byte
	layers                        int // that get one
}

// eachStored calls visit with each manifest of a public repository that gets
// records.
func (n *Notifier) eachStored(ctx context.Context, visit func(storedManifest) error) error {
	return n.Storage.Repositories(ctx, func(repository string) error {
		if !n.Public(repository) {
			return nil
		}
		return n.Storage.Manifests(ctx, repository, func(digest string) error {
			mediaType, payload, err := n.Storage.Manifest(ctx, repository, digest)
			if errors.Is(err, ErrNotStored) || errors.Is(err, errUnreadable) {
				return nil // deleted meanwhile, or damaged
			}
			if err != nil {
				return err
			}
			info, err := readManifest(mediaType, payload)
			if err != nil {
				return nil
			}
			layers, _ := layersOf(&info)
			if len(layers) == 0 {
				return nil
			}
			return visit(storedManifest{repository, digest, mediaType, payload, len(layers)})
		})
	})
}

// sweep asks for the end of what the ledger has of manifests that are not in
// storage. An entry that was rebuilt and that no manifest in storage asked for
// goes, too.
func (n *Notifier) sweep(ctx context.Context) error {
	for place, first := []byte(nil), true; first || place != nil; first = false {
		// In pages, so that the store is not held open while events are pending.
		page, next, err := n.ledger.Page(place, reconcileAhead)
		if err != nil {
			return err
		}
		for _, m := range page {
			if m.Owner != n.Owner {
				continue
			}
			if err := n.sweepEntry(ctx, m); err != nil {
				return err
			}
		}
		place = next
	}
	return nil
}

func (n *Notifier) sweepEntry(ctx context.Context, m ledger.Manifest) error {
	for _, repository := range m.Repositories {
		if repository != unknownRepository {
			has, err := n.Storage.Has(ctx, repository, m.Digest)
			if has || errors.Is(err, errUnreadable) {
				continue
			}
			if err != nil {
				return err
			}
		}
		err := n.inform(ctx, Event{NotifyManifestInput: lexicon.NotifyManifestInput{
			Repository: repository, ManifestDigest: m.Digest, Operation: opDelete,
		}}, nil, 0)
		if err != nil {
			return err
		}
	}
	return nil
}

// inform puts an event into the journal that no request has made. It waits while
// many events are pending.
func (n *Notifier) inform(ctx context.Context, e Event, manifest []byte, layers int) error {
	if last := n.Journal.Status(journal.Pushes).Last; last > reconcileAhead {
		if err := n.recordsReach(ctx, last-reconcileAhead); err != nil {
			return err
		}
	}
	e.Version, e.UserDID, e.TIDs = eventVersion, n.Owner, layers
	e.Time, e.TID, e.ClockID = n.clock.reserve(1 + layers)
	e.Time = e.Time.UTC()
	var payload []byte
	if manifest != nil {
		payload = e.encodePushed(manifest)
	} else {
		var err error
		if payload, err = e.encode(); err != nil {
			return err
		}
	}
	_, err := n.Journal.Append(ctx, journal.Pushes, uint64(e.TID)+uint64(e.TIDs), payload)
	return err
}
