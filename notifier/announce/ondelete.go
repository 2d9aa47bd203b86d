package announce

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/announce/decided"
	"github.com/tidings-dev/tidings/notifier/announce/posted"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/pushrow"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/stored"
)

// How posts are deleted
//
// With Retract, the post of an image is deleted when the image is gone: its manifest was
// deleted, each of its announced tags was deleted, or another registry reports it as
// private. A tag that has moved to another image is not deleted. A post that is about a newer
// version, or about many, stays.
//
// The commit that decides about the event of the delete marks the post in the history as
// deleted, so that a later push of the image is announced like that of a new one, removes it
// from the results of pushes, and has a row with the post's key. The rows are a second
// outbox, which is written with the priority of records, so it never delays posts. The posts
// that an operator withdraws (withdraw.go) get such rows, too. Crash cases:
//
//   - Before the commit: the event is read again, and storage is asked again. Nothing was
//     withdrawn.
//   - After it: the row is there until the post is deleted. Before a delete is sent, the post
//     is read; one that does not exist any more is deleted.
//
// A post may have a document, which has the same key and is deleted in the same call.
//
// No post is missed: an event is decided after the posts of all earlier events were written
// or found to be of an image that is gone, and a post that is written later has been
// checked after the delete.

// A retraction is a post that is to be deleted.
type retraction struct {
	Repository string `json:"repository"`
	Digest     string `json:"digest"`
	RKey       string `json:"rkey"`
	Seq        uint64 `json:"seq,omitempty"` // of the event; 0: the post was withdrawn

	DocumentOnly bool `json:"documentOnly,omitempty"` // the post does not exist
}

// maxRetracted is how many posts are deleted at once.
const maxRetracted = 100

// retryDeletes is the time between two attempts to delete posts.
const retryDeletes = time.Minute

func retractionKey(rkey string) []byte { return append([]byte(state.Retractions), rkey...) }

// deleting reports whether a post is to be deleted.
func (s *Sink) deleting(rkey string) (bool, error) { return state.Has(s.State, retractionKey(rkey)) }

// followDeletes decides which posts are deleted because of the first done events.
func (d *decision) followDeletes(ctx context.Context, events []event.Sequenced, done int, p decided.Events) error {
	for i, e := range events[:done] {
		if p.Has(e.Seq) || e.Seq <= p.Again && !d.Storage.Local(e.Event) || e.Repository == "" || e.Private() && publicAgain(&e, events[i+1:]) {
			continue
		}
		digests, err := d.lostBy(&e)
		if err != nil {
			return err
		}
		for _, digest := range digests {
			if err := d.followDelete(ctx, &e, digest); err != nil {
				return err
			}
		}
	}
	return d.removeResults(d.retracted, reasonRetracted)
}

// publicAgain reports whether a private image was pushed as public later.
func publicAgain(private *event.Sequenced, later []event.Sequenced) bool {
	return slices.ContainsFunc(later, func(e event.Sequenced) bool {
		return e.Operation == event.OpPush && !e.Private() && e.Repository == private.Repository && e.ManifestDigest == private.ManifestDigest
	})
}

// lostBy returns the digests whose posts an event may concern.
func (d *decision) lostBy(e *event.Sequenced) ([]string, error) {
	switch {
	case e.Operation == event.OpDelete, e.Operation == event.OpPush && e.Private() && !e.Foreign:
		return []string{e.ManifestDigest}, nil
	case e.Operation == event.OpUntag:
		return d.taggedDigests(e.Repository, e.Tag)
	}
	return nil, nil
}

// followDelete removes the versions of an image that is gone and, with Retract, deletes its
// posts.
func (d *decision) followDelete(ctx context.Context, e *event.Sequenced, digest string) error {
	es, err := d.posts.Get(e.Repository, digest)
	if err != nil {
		return err
	}
	live := es.Live()
	if len(live) == 0 {
		return nil
	}
	gone, err := d.gone(ctx, e, digest, live)
	if err != nil || !gone {
		return err
	}
	d.changed = true
	if err := d.versions.DeleteImage(&d.b, e.Repository, digest); err != nil {
		return err
	}
	own := slices.DeleteFunc(es.Live(), func(e posted.Entry) bool { return e.Joined || e.Withdrawn || e.RKey == "" })
	if !d.Retract || len(own) == 0 {
		return nil
	}
	var rkeys []string
	for _, entry := range own {
		rkeys = append(rkeys, entry.RKey)
		if err := d.noteDeleted(entry.RKey, posted.DeletedImage); err != nil {
			return err
		}
		if err := d.set(retractionKey(entry.RKey), retraction{Repository: e.Repository, Digest: digest, RKey: entry.RKey, Seq: e.Seq}); err != nil {
			return err
		}
	}
	d.durable = true
	d.retracted = append(d.retracted, rkeys...)
	if len(own) == len(live) {
		if err := d.forgetTags(&d.b, e.Repository, digest, live); err != nil {
			return err
		}
	}
	return d.posts.MarkDeleted(&d.b, e.Repository, digest, rkeys)
}

// gone reports whether an image is gone after an event.
func (s *Sink) gone(ctx context.Context, e *event.Sequenced, digest string, es posted.Entries) (bool, error) {
	if e.Private() {
		return true, nil
	}
	tags := s.announcedTags(es)
	if !s.Storage.Local(e.Event) {
		others := slices.DeleteFunc(tags, func(t string) bool { return t == e.Tag })
		return e.Operation == event.OpDelete || len(others) == 0, nil
	}
	has, err := s.Storage.Has(ctx, e.Repository, digest)
	if errors.Is(err, stored.ErrUnreadable) {
		return false, nil
	}
	if err != nil || !has {
		return !has, err
	}
	for _, tag := range tags {
		_, err := s.Storage.Tagged(ctx, e.Repository, tag)
		if !errors.Is(err, stored.ErrNotStored) {
			if errors.Is(err, stored.ErrUnreadable) {
				err = nil
			}
			return false, err
		}
	}
	return len(tags) > 0, nil
}

// announcedTags are the tags for which an image was announced, without those that were only
// named; all if the options have changed so that none is left.
func (s *Sink) announcedTags(es posted.Entries) []string {
	var all, announced []string
	for _, e := range es {
		all = append(all, e.Tags...)
	}
	for _, t := range all {
		if s.Tag(t) {
			announced = append(announced, t)
		}
	}
	if len(announced) == 0 {
		return all
	}
	return announced
}

// Untagging says only the tag. So the digests whose posts name a tag are noted:
//
//	state.PostedTags <tag hash>   digests, the newest last, 16 bytes and 72 for each
//
// A digest is removed when all its posts are, so a row ends with the last of its images.
// maxTagged limits them; the tag has usually moved away from older ones.
const maxTagged = 16

func tagKey(repository, tag string) []byte {
	return state.ImageKey(state.PostedTags, repository, tag)
}

// taggedDigests returns the digests that have a post that names a tag.
func (s *Sink) taggedDigests(repository, tag string) ([]string, error) {
	return digestsOf(s.State.Get(tagKey(repository, tag)))
}

func digestsOf(val []byte, err error) ([]string, error) {
	if errors.Is(err, state.ErrNotFound) {
		return nil, nil
	}
	return strings.Fields(string(val)), err
}

// noteTags notes in b that an image has a post that names its tags.
func (s *Sink) noteTags(b *state.Batch, v *version, result pushrow.Announce) error {
	if !s.Retract || result.PostURI == "" {
		return nil
	}
	for _, tag := range v.Tags {
		key := tagKey(v.Repository, tag)
		digests, err := digestsOf(b.Get(s.State, key))
		if err != nil {
			return fmt.Errorf("read the digests of a tag: %w", err)
		}
		if slices.Contains(digests, v.Digest) {
			continue
		}
		digests = append(digests, v.Digest)
		b.Set(key, []byte(strings.Join(digests[max(0, len(digests)-maxTagged):], " ")))
	}
	return nil
}

// forgetTags removes in b an image from the tags that its posts name.
func (s *Sink) forgetTags(b *state.Batch, repository, digest string, posts posted.Entries) error {
	for _, post := range posts {
		for _, tag := range post.Tags {
			key := tagKey(repository, tag)
			digests, err := digestsOf(b.Get(s.State, key))
			if err != nil {
				return fmt.Errorf("read the digests of a tag: %w", err)
			}
			left := slices.DeleteFunc(slices.Clone(digests), func(d string) bool { return d == digest })
			switch {
			case len(left) == len(digests):
			case len(left) == 0:
				b.Delete(key)
			default:
				b.Set(key, []byte(strings.Join(left, " ")))
			}
		}
	}
	return nil
}

// retract deletes the posts that are to be deleted, and returns when it is to be called
// again. An error of the account is logged, so that posts do not wait for it.
func (s *Sink) retract(ctx context.Context) (next time.Time, err error) {
	if s.DryRun {
		return time.Time{}, nil
	}
	if left := s.retry.Sub(s.now()); left > 0 && left <= retryDeletes {
		return s.retry, nil
	}
	s.retry = time.Time{}
	for {
		rows, err := s.retractions()
		if err != nil || len(rows) == 0 {
			return time.Time{}, err
		}
		if err := s.deletePosts(ctx, rows); err != nil {
			s.retry = s.now().Add(retryDeletes)
			s.Metrics.Retry(Name)
			s.Log.Warn("posts are deleted later", "posts", len(rows), "at", s.retry, "error", err)
			return s.retry, nil
		}
	}
}

// retractions returns the first of the posts that are to be deleted.
func (s *Sink) retractions() (rows []retraction, err error) {
	err = s.State.Scan(state.Prefix(state.Retractions), func(_, val []byte) error {
		if len(rows) == maxRetracted {
			return state.ErrStop
		}
		var r retraction
		err := json.Unmarshal(val, &r)
		rows = append(rows, r)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the posts to be deleted: %w", err)
	}
	return rows, nil
}

// deletePosts deletes posts and their rows. A delete that the account refuses for good is
// given up.
func (s *Sink) deletePosts(ctx context.Context, rows []retraction) error {
	var b state.Batch
	for len(rows) > 0 {
		writes, ofRow := deletesOf(rows)
		err := s.deletes.Deliver(ctx, writes, false)
		var invalid *repo.WriteError
		if !errors.As(err, &invalid) || invalid.Index < 0 || invalid.Index >= len(ofRow) {
			if err != nil {
				return err
			}
			break
		}
		i := ofRow[invalid.Index]
		r := rows[i]
		if err := s.giveUpDelete(&b, r, invalid); err != nil {
			return err
		}
		b.Delete(retractionKey(r.RKey))
		rows = slices.Delete(rows, i, i+1)
	}
	for _, r := range rows {
		b.Delete(retractionKey(r.RKey))
		if r.DocumentOnly {
			s.Log.Info("a document without a post is deleted", "repository", r.Repository, "digest", r.Digest, "key", r.RKey)
			continue
		}
		if r.Seq == 0 {
			s.Metrics.Post("withdrawn")
			s.Log.Info("a withdrawn post is deleted", "repository", r.Repository, "digest", r.Digest, "post", s.posts.URI(r.RKey))
			continue
		}
		s.Metrics.Post("retracted")
		s.Log.Info("the post of a deleted image is deleted", "repository", r.Repository, "digest", r.Digest, "post", s.posts.URI(r.RKey))
	}
	return s.State.Commit(&b, state.Sync)
}

// deletesOf are the deletes of posts and their documents, if they have any. ofRow has the
// index of the row of each.
func deletesOf(rows []retraction) (writes []repo.Write, ofRow []int) {
	for i, r := range rows {
		collections := []string{lexicon.NSIDDocument, lexicon.NSIDPost}
		if r.DocumentOnly {
			collections = collections[:1]
		}
		for _, collection := range collections {
			writes = append(writes, repo.Write{Action: repo.Delete, Collection: collection, RKey: r.RKey})
			ofRow = append(ofRow, i)
		}
	}
	return writes, ofRow
}
