package reconcile

import (
	"context"
	"errors"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/stored"
	"github.com/tidings-dev/tidings/notifier/versions"
)

// reconcileVersions appends a delete event for each announced version whose image is gone. After
// a rebuild the versions of images that were deleted long ago are back, since their posts are
// in the account, and the ledger does not say of which repository its images are.
func (r *Reconciler) reconcileVersions(ctx context.Context) error {
	if !r.Versions {
		return nil
	}
	store := versions.New(r.State)
	for position, first := []byte(nil), true; first || position != nil; first = false {
		page, next, err := store.Page(position, reconcileAhead)
		if err != nil {
			return err
		}
		for _, v := range page {
			gone, err := r.isGone(ctx, v)
			if err != nil {
				return err
			}
			if !gone {
				continue
			}
			err = r.appendPaced(ctx, event.Event{NotifyManifestInput: lexicon.NotifyManifestInput{
				Repository: v.Repository, UserDID: r.OwnerOf(ctx, v.Repository).DID, ManifestDigest: v.Digest, Operation: event.OpDelete,
			}}, nil, 0)
			if err != nil {
				return err
			}
		}
		position = next
	}
	return nil
}

// isGone reports whether the registry's storage does not have the image of a version. The posts
// of others who write to the account may be of images in another storage.
func (r *Reconciler) isGone(ctx context.Context, v versions.Version) (bool, error) {
	if key, err := syntax.ParseTID(v.Post); err == nil && r.foreign(key.ClockID()) {
		return false, nil
	}
	has, err := r.Storage.Has(ctx, v.Repository, v.Digest)
	if errors.Is(err, stored.ErrUnreadable) {
		return false, nil
	}
	return !has, err
}
