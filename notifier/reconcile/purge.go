package reconcile

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/announce"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/state"
)

// purgeEntries and purgePages are how many ledger entries, and pages of the account's posts, a
// step of CountPublished looks at.
const (
	purgeEntries = 1000
	purgePages   = 5
	purgePage    = 100
)

// A Published is what is published of a repository, as far as a step of CountPublished has
// found it.
type Published struct {
	Manifests int    `json:"manifests"`        // with records
	Records   int    `json:"records"`          // of these manifests that no other repository claims
	Posts     int    `json:"posts"`            // of images that are announced
	Waiting   int    `json:"waiting"`          // versions that wait to be announced
	Stats     int    `json:"stats"`            // records of counts
	Cursor    string `json:"cursor,omitempty"` // of the next step; "": this was the last one
}

// ErrPurgeCursor is returned for a cursor that no step has returned.
var ErrPurgeCursor = errors.New("invalid cursor of a purge")

// Parts of the count: the beginning of a cursor.
const (
	countLedger = "ledger:"
	countPosts  = "posts:"
	countStats  = "stats:"
)

// CountPublished counts what a purge of a repository would remove, in steps, each of which
// ends after a limited time and returns where the next begins; the first one has cursor "".
func (r *Reconciler) CountPublished(ctx context.Context, repository, cursor string) (found Published, err error) {
	part, rest, _ := strings.Cut(cursor, ":")
	switch {
	case cursor == "":
		found.Cursor = countLedger
		found.Waiting, err = announce.CountWaiting(r.State, r.Purged, repository)
		return found, err
	case part+":" == countLedger:
		return r.countManifests(repository, rest)
	case part+":" == countPosts:
		return r.countPosts(ctx, repository, rest)
	case part+":" == countStats:
		key, err := r.statsRecord(ctx, repository)
		if key != "" {
			found.Stats = 1
		}
		return found, err
	}
	return found, ErrPurgeCursor
}

// countManifests counts the manifests that the ledger has after a key.
func (r *Reconciler) countManifests(repository, rest string) (found Published, err error) {
	after, err := hex.DecodeString(rest)
	if err != nil {
		return found, ErrPurgeCursor
	}
	if len(after) == 0 {
		after = nil
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
	}
	if found.Cursor = countPosts; next != nil {
		found.Cursor = countLedger + hex.EncodeToString(next)
	}
	return found, nil
}

// countPosts counts the posts about images of a repository after a key.
func (r *Reconciler) countPosts(ctx context.Context, repository, cursor string) (found Published, err error) {
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
			if live {
				found.Posts++
			}
		}
		if cursor = next; cursor == "" {
			found.Cursor = countStats
			return found, nil
		}
	}
	found.Cursor = countPosts + cursor
	return found, nil
}

// statsRecord returns the key of the record of a repository's counts, "" if there is none.
func (r *Reconciler) statsRecord(ctx context.Context, repository string) (key string, err error) {
	owner := r.OwnerOf(ctx, repository)
	if owner.DID == "" {
		return "", nil
	}
	key = lexicon.StatsKey(owner.DID, repository)
	_, _, err = r.Account.Get(ctx, lexicon.NSIDStats, key)
	if errors.Is(err, repo.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the record of the counts: %w", err)
	}
	return key, nil
}

// Purge removes what was published of a repository, while its images stay in storage, and
// returns the sequence number of the event that does: see package purged. When it returns
// without an error, that is durable. What is pushed afterwards is published as usual.
//
// The record of the counts is deleted first, since no sink writes it. If a crash follows, the
// repository is not purged, and its counts are published again with their next change.
func (r *Reconciler) Purge(ctx context.Context, repository string) (seq uint64, err error) {
	if err := r.Ready(); err != nil {
		return 0, err
	}
	if r.Journal.HalfFull(journal.Pushes) {
		return 0, ErrBusy // at its limit the journal would drop the event
	}
	if err := r.deleteStats(ctx, repository); err != nil {
		return 0, err
	}
	seq, err = r.Append(context.WithoutCancel(ctx), event.Event{Version: event.RemovalVersion, NotifyManifestInput: lexicon.NotifyManifestInput{
		Repository: repository, UserDID: r.OwnerOf(ctx, repository).DID, Operation: event.OpPurge,
	}}, nil, 0)
	if err != nil {
		return 0, fmt.Errorf("record the purge: %w", err)
	}
	r.Log.Info("a repository is purged", "repository", repository, "event", seq)
	return seq, r.Purged.Raise(repository, seq)
}

func (r *Reconciler) deleteStats(ctx context.Context, repository string) error {
	key, err := r.statsRecord(ctx, repository)
	if err != nil || key == "" {
		return err
	}
	err = r.Account.Deliver(ctx, []repo.Write{{Action: repo.Delete, Collection: lexicon.NSIDStats, RKey: key}}, false)
	if err != nil {
		return fmt.Errorf("delete the record of the counts: %w", err)
	}
	return nil
}

// Published reports whether images of a repository that are found in storage are to be
// published: whether it is public and was not purged since its last push.
func (r *Reconciler) Published(repository string) (bool, error) {
	purged, err := r.LeftOut(repository)
	return r.Public(repository) && !purged, err
}

// LeftOut reports whether images of a public repository that are found in storage are not
// published, since the repository was purged and not pushed to afterwards.
func (r *Reconciler) LeftOut(repository string) (bool, error) {
	if !r.Public(repository) {
		return false, nil
	}
	return r.Purged.Marked(new(state.Batch), repository)
}
