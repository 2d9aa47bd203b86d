package announce

import (
	"context"
	"errors"
	"reflect"
	"slices"

	"github.com/tidings-dev/tidings/notifier/delivery"
)

// Confirm sends the posts in the outbox, without those that are not to be written any more.
func (s *Sink) Confirm(ctx context.Context) error {
	release, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer release()
	return s.confirm(ctx)
}

// confirm is Confirm in the sink's turn.
func (s *Sink) confirm(ctx context.Context) error {
	if err := s.posts.NoteEarlier(s.versions); err != nil {
		return err
	}
	if s.DryRun {
		return nil
	}
	batch := &announcementBatch{}
	pending, err := s.outbox().Load(batch)
	if err != nil || !pending {
		return err
	}
	d := s.newDecision()
	changed, err := d.recheckBatch(ctx, batch)
	if err != nil {
		return err
	}
	if changed {
		if err := s.outbox().Put(&d.b, batch); err != nil {
			return err
		}
	}
	return s.send(ctx, batch, false)
}

// recheckBatch checks again the posts that are missing in the repo: whether their
// repository is public, their age, and whether the images still have their tags. It
// reports whether it has changed the batch.
func (d *decision) recheckBatch(ctx context.Context, batch *announcementBatch) (changed bool, err error) {
	for i := len(batch.Posts) - 1; i >= 0; i-- {
		a := &batch.Posts[i]
		done, err := d.Account.Done(ctx, a.Write)
		if errors.Is(err, delivery.ErrConflict) || done || len(a.Tags) == 0 && !a.isSummary() {
			continue // send handles a conflict; what an earlier version wrote is sent as it is
		}
		if err != nil {
			return changed, err
		}
		again, err := d.recheck(ctx, a)
		if err != nil {
			return changed, err
		}
		switch {
		case again == nil:
			if err := d.deleteDocument(ctx, a); err != nil {
				return changed, err
			}
			batch.Posts = slices.Delete(batch.Posts, i, i+1)
			changed = true
		case again.TID != a.TID || again.versions() != a.versions() || !reflect.DeepEqual(again.Tags, a.Tags):
			if err := d.replace(ctx, a, again); err != nil {
				return changed, err
			}
			changed = true
		}
	}
	return changed, nil
}

// replace replaces a post by another, which has a document if the key is not that of one
// that is to be deleted.
func (d *decision) replace(ctx context.Context, a, again *announcement) error {
	if err := d.deleteDocument(ctx, a); err != nil {
		return err
	}
	var r retraction
	deleted, err := d.get(retractionKey(again.Write.RKey), &r)
	if err == nil && !deleted {
		err = d.addDocument(ctx, again)
	}
	if err == nil {
		*a = *again
	}
	return err
}

// recheck returns a post that is still missing, as far as it is to be written; nil if it is
// not.
func (d *decision) recheck(ctx context.Context, a *announcement) (*announcement, error) {
	if a.isSummary() {
		again := *a
		var err error
		if again.Others, err = d.recheckVersions(ctx, a.Others); err != nil || len(again.Others) == 0 {
			return nil, err
		}
		return &again, d.composeSummary(&again)
	}
	versions := append(slices.Clone(a.Others), a.version)
	if d.late(a.stamp(), a.Waited) {
		return nil, d.allToSummary(versions, waitsSinceLate)
	}
	again, err := d.assemble(ctx, versions)
	if again != nil {
		again.Waited = a.Waited
	}
	return again, err
}
