package reconcile

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/announce"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/purged"
	"github.com/tidings-dev/tidings/notifier/records"
	"github.com/tidings-dev/tidings/notifier/state"
)

// How a repository is purged
//
// A purge removes what was published of one repository, while its images stay in storage.
// First the repository is marked in the state (state.Purged): backfills and reconciliations
// pass over it, and its counts are not published. The first push to it afterwards removes
// the mark, in the commit of the records sink that handles the push. The same commit keeps
// the announce sink from announcing what was pushed before, see package announce.
//
// Then, once the records sink has processed the earlier pushes, each image of the repository
// gets a purge event: those that the ledger knows, and those that the account has posts of.
// The records sink removes the repository's claim whatever storage has; the announce sink
// deletes the posts of the image with their documents, as for an image that is gone. The
// record of the counts is deleted directly.
//
// The caller purges in steps, each of which ends after a limited time and returns where the
// next begins. A repeated step has no effect, so after a crash the purge is begun again.

// purgeEntries and purgePages are how many ledger entries, and pages of the account's posts, a
// step looks at.
const (
	purgeEntries = 1000
	purgePages   = 5
	purgePage    = 100
)

// A Purged is what a step of a purge has found.
type Purged struct {
	Manifests int    `json:"manifests"`        // with records
	Records   int    `json:"records"`          // of these manifests that no other repository claims
	Posts     int    `json:"posts"`            // of images that are announced
	Waiting   int    `json:"waiting"`          // versions that wait to be announced
	Stats     int    `json:"stats"`            // records of counts
	Cursor    string `json:"cursor,omitempty"` // of the next step; "": this was the last one
}

// ErrPurgeCursor is returned for a cursor that no step has returned.
var ErrPurgeCursor = errors.New("invalid cursor of a purge")

// Parts of a purge: the beginning of a cursor.
const (
	purgeBegin  = ":" // the cursor ""
	purgeLedger = "ledger:"
	purgePosts  = "posts:"
	purgeStats  = "stats:"
)

// Purge makes a step of a purge; the first one has cursor "". Unless remove is set it only
// counts.
func (r *Reconciler) Purge(ctx context.Context, repository, cursor string, remove bool) (found Purged, err error) {
	if remove {
		if err := r.CheckBusy(); err != nil {
			return found, err
		}
	}
	switch part, rest, _ := strings.Cut(cursor, ":"); part + ":" {
	case purgeBegin:
		return r.beginPurge(ctx, repository, remove)
	case purgeLedger:
		return r.purgeLedger(ctx, repository, rest, remove)
	case purgePosts:
		return r.purgePosts(ctx, repository, rest, remove)
	case purgeStats:
		return r.purgeStats(ctx, repository, remove)
	}
	return found, ErrPurgeCursor
}

// settleTimeout limits how long a purge waits for a post that is being sent.
const settleTimeout = 10 * time.Second

// beginPurge marks the repository. When it returns, the account has the posts of all earlier
// pushes that will be written.
func (r *Reconciler) beginPurge(ctx context.Context, repository string, remove bool) (found Purged, err error) {
	found.Cursor = purgeLedger
	if found.Waiting, err = announce.CountWaiting(r.State, repository); err != nil || !remove {
		return found, err
	}
	last := r.Journal.Status(journal.Pushes).Last
	var b state.Batch
	purged.Mark(&b, repository, last)
	if err := r.State.Commit(&b, state.Sync); err != nil {
		return found, fmt.Errorf("mark %s as purged: %w", repository, err)
	}
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	if r.Settle(ctx) != nil {
		return found, ErrBusy
	}
	return found, nil
}

// purgeLedger purges the manifests that the ledger knows after a key.
func (r *Reconciler) purgeLedger(ctx context.Context, repository, rest string, remove bool) (found Purged, err error) {
	after, err := hex.DecodeString(rest)
	if err != nil {
		return found, ErrPurgeCursor
	}
	if len(after) == 0 {
		after = nil
	}
	if remove && after == nil {
		if err := r.checkProcessed(repository); err != nil {
			return found, err
		}
	}
	page, next, err := r.Ledger.Page(after, purgeEntries)
	if err != nil {
		return found, err
	}
	for _, m := range page {
		if !m.In(repository) {
			continue
		}
		found.Manifests++
		if len(m.Repositories) == 1 {
			found.Records += m.Entry.Records
		}
		if remove {
			if err := r.appendPurge(ctx, repository, m.Digest); err != nil {
				return found, err
			}
		}
	}
	if found.Cursor = purgePosts; next != nil {
		found.Cursor = purgeLedger + hex.EncodeToString(next)
	}
	return found, nil
}

// checkProcessed returns ErrBusy until the ledger has the records of all pushes before the
// purge.
func (r *Reconciler) checkProcessed(repository string) error {
	last, err := purged.UpTo(r.State, repository)
	if err == nil && r.Journal.Cursor(journal.Pushes, records.Name) < last {
		err = fmt.Errorf("%w: the records sink has not processed all earlier pushes", ErrBusy)
	}
	return err
}

// purgePosts purges the images of the account's posts after a key.
func (r *Reconciler) purgePosts(ctx context.Context, repository, cursor string, remove bool) (found Purged, err error) {
	for range purgePages {
		page, next, err := r.Account.List(ctx, lexicon.NSIDPost, cursor, purgePage, true)
		if err != nil {
			return found, fmt.Errorf("list the account's posts: %w", err)
		}
		for _, p := range page {
			image, ok := announce.Origin(p)
			if !ok || image.Repository != repository {
				continue
			}
			live, err := r.Posts.Live(repository, image.Digest, p.RKey)
			if err != nil {
				return found, err
			}
			if !live {
				continue
			}
			found.Posts++
			if remove {
				if err := r.appendPurge(ctx, repository, image.Digest); err != nil {
					return found, err
				}
			}
		}
		if cursor = next; cursor == "" {
			found.Cursor = purgeStats
			return found, nil
		}
	}
	found.Cursor = purgePosts + cursor
	return found, nil
}

// purgeStats deletes the record of the counts.
func (r *Reconciler) purgeStats(ctx context.Context, repository string, remove bool) (found Purged, err error) {
	owner := r.OwnerOf(ctx, repository)
	if owner.DID == "" {
		return found, nil
	}
	key := lexicon.StatsKey(owner.DID, repository)
	_, _, err = r.Account.Get(ctx, lexicon.NSIDStats, key)
	if errors.Is(err, repo.ErrNotFound) {
		return found, nil
	}
	if err != nil {
		return found, fmt.Errorf("read the record of the counts: %w", err)
	}
	if found.Stats = 1; !remove {
		return found, nil
	}
	return found, r.Account.Deliver(ctx, []repo.Write{{Action: repo.Delete, Collection: lexicon.NSIDStats, RKey: key}}, false)
}

func (r *Reconciler) appendPurge(ctx context.Context, repository, digest string) error {
	_, err := r.Append(ctx, event.Event{NotifyManifestInput: lexicon.NotifyManifestInput{
		Repository: repository, UserDID: r.OwnerOf(ctx, repository).DID, ManifestDigest: digest, Operation: event.OpPurge,
	}}, nil, 0)
	return err
}

// Published reports whether images of a repository that are found in storage are to be
// published: whether it is public and not purged.
func (r *Reconciler) Published(repository string) (bool, error) {
	if !r.Public(repository) {
		return false, nil
	}
	marked, err := state.Has(r.State, state.PurgedKey(repository))
	return !marked, err
}
