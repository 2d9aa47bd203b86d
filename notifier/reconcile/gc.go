package reconcile

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/ledger"
	"github.com/tidings-dev/tidings/notifier/records"
	"github.com/tidings-dev/tidings/notifier/stored"
)

// A Claim is that of a repository in a ledger entry.
type Claim struct {
	Owner      string `json:"owner"`
	Repository string `json:"repository"`
	Digest     string `json:"digest"`
	Records    int    `json:"records"` // of the manifest; other repositories may claim them as well
}

// Orphans looks at up to limit ledger entries after a key, and returns the claims whose
// repository does not have the manifest any more, how many entries it has looked at, and the
// key to continue after, nil if there are no more. A manifest that storage can't read is
// not gone.
func (r *Reconciler) Orphans(ctx context.Context, after []byte, limit int) (found []Claim, looked int, next []byte, err error) {
	page, next, err := r.Ledger.Page(after, limit)
	if err != nil {
		return nil, 0, nil, err
	}
	gone := make([][]Claim, len(page))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(stored.MaxLookups)
	for i, m := range page {
		g.Go(func() (err error) {
			gone[i], err = r.orphansOf(gctx, m)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, 0, nil, err
	}
	for _, claims := range gone {
		found = append(found, claims...)
	}
	return found, len(page), next, nil
}

func (r *Reconciler) orphansOf(ctx context.Context, m ledger.Manifest) (claims []Claim, err error) {
	for _, repository := range m.Repositories {
		if repository == ledger.UnknownRepository || !r.Local(m.Owner, repository) {
			continue
		}
		has, err := r.Storage.Has(ctx, repository, m.Digest)
		if has || errors.Is(err, stored.ErrUnreadable) {
			continue
		}
		if err != nil {
			return nil, err
		}
		claims = append(claims, Claim{m.Owner, repository, m.Digest, m.Entry.Records})
	}
	return claims, nil
}

// ErrBusy is returned while events are pending that have to be processed first.
var ErrBusy = errors.New("events are pending; try again in a moment")

// CheckBusy returns ErrBusy while many events are pending at the records sink or the
// journal is half full, and the error of Ready.
func (r *Reconciler) CheckBusy() error {
	if err := r.Ready(); err != nil {
		return err
	}
	s := r.Journal.Status(journal.Pushes)
	if s.Last-min(s.Last, r.Journal.Cursor(journal.Pushes, records.Name)) > reconcileAhead || r.Journal.HalfFull(journal.Pushes) {
		return ErrBusy
	}
	return nil
}

// Forsake appends a delete event for each claim. The records sink asks storage again, so a
// manifest that was pushed meanwhile keeps its records.
func (r *Reconciler) Forsake(ctx context.Context, claims []Claim) error {
	for _, c := range claims {
		_, err := r.Append(ctx, event.Event{NotifyManifestInput: lexicon.NotifyManifestInput{
			Repository: c.Repository, UserDID: c.Owner, ManifestDigest: c.Digest, Operation: event.OpDelete,
		}}, nil, 0)
		if err != nil {
			return err
		}
	}
	return nil
}
