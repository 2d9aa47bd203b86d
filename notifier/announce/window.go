package announce

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/notifier/announce/decided"
	"github.com/tidings-dev/tidings/notifier/announce/posted"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/pushrow"
	"github.com/tidings-dev/tidings/notifier/state"
)

// Reasons why an image is not announced, which several places give.
const (
	reasonDeleted = "deleted before it was announced"
	reasonPrivate = "private"

	reasonForgotten = "its owner has had its data deleted"
	reasonPurged    = "its repository was purged"
	reasonTagGone   = "its tag was moved or deleted before it was announced"
	reasonWithdrawn = "its announcement was withdrawn"
	reasonRetracted = "its post was deleted with its image"
)

// A window collects the tags of one digest in one repository.
type window struct {
	start int // index of its first event
	first event.Sequenced
	seqs  []uint64
	tags  []string

	private   bool // the last push reports that the image is private
	forgotten bool // its owner then had its data deleted

	// For images of other registries, whose storage can't be asked:
	deleted bool // a delete followed the last push
	lostTag bool // one of its tags was deleted, or moved to another digest
}

// removeTag removes a tag from a window.
func (w *window) removeTag(tag string) {
	left := slices.DeleteFunc(w.tags, func(t string) bool { return t == tag })
	w.lostTag = w.lostTag || len(left) < len(w.tags)
	w.tags = left
}

// windows opens a window for each digest that may be announced, in the order of
// their first events. A push that can't be announced gets its result at once.
// Events that are decided only change the tags of others.
func (s *Sink) windows(events []event.Sequenced, p decided.Events) ([]*window, error) {
	var order []*window
	open := map[string]*window{}
	var b state.Batch
	for i, e := range events {
		id := e.Repository + "\x00" + e.ManifestDigest
		local := s.Storage.Local(e.Event)
		switch {
		case e.Operation == event.OpForgetOwner:
			for _, w := range order {
				w.forgotten = w.forgotten || s.OwnerOf(w.first.Repository) == e.UserDID
			}
		case e.Operation == event.OpPurge:
			if err := s.Purged.Raise(e.Repository, e.Seq); err != nil {
				return nil, err
			}
		case e.Operation == event.OpDelete:
			if w := open[id]; w != nil && !local {
				w.deleted, w.tags = true, nil
			}
		case e.Tag != "" && !local && (e.Operation == event.OpPush || e.Operation == event.OpUntag):
			for _, w := range order {
				if w.first.Repository == e.Repository && (w.first.ManifestDigest != e.ManifestDigest || e.Operation == event.OpUntag) {
					w.removeTag(e.Tag)
				}
			}
		}
		if e.Operation != event.OpPush {
			continue
		}
		w := open[id]
		if w != nil {
			w.private = e.Private()
		}
		if p.Has(e.Seq) || !local && e.Seq <= p.Again {
			continue
		}
		reason, err := s.unannouncedNow(&e)
		if err != nil {
			return nil, err
		}
		if reason != "" {
			if err := s.putFirstResult(&b, e.Seq, pushrow.Announce{Reason: reason}); err != nil {
				return nil, err
			}
			continue
		}
		if w == nil || s.age(w.first)-s.age(e) >= s.Collect {
			w = &window{start: i, first: e}
			open[id] = w
			order = append(order, w)
		}
		w.seqs = append(w.seqs, e.Seq)
		w.tags = append(w.tags, e.Tag)
		w.deleted = false
	}
	return order, s.State.Commit(&b, state.NoSync)
}

func (s *Sink) age(e event.Sequenced) time.Duration { return s.clock.Age(e.Stamp()) }

// unannouncedNow is the reason why a push isn't announced, as far as it opens no window; ""
// if it opens one.
func (s *Sink) unannouncedNow(e *event.Sequenced) (reason string, err error) {
	reason = unannounced(e)
	if reason == "" && !s.Public(e.Name()) {
		reason = "not public"
	}
	if reason == "" && e.Retry != nil {
		return s.removedSince(e.Repository, e.Result())
	}
	return reason, nil
}

// unannounced is the reason why a push can't be announced, "" if it can.
func unannounced(e *event.Sequenced) string {
	switch {
	case e.Private():
		return reasonPrivate
	case e.Plan.Post:
		return ""
	case e.Foreign:
		return "an image of another owner, and it is not known here where to pull it"
	case e.Unreadable != nil:
		return "its manifest can't be read"
	case e.Tag == "":
		return "pushed without a tag"
	case e.Manifest.Subject != nil:
		return "not announced, since it describes another manifest, its subject"
	}
	return fmt.Sprintf("not announced, since its kind is %s and it is neither an image nor an index of images", e.Kind)
}

// closeWindows decides about windows up to the first that is still open. closed are the
// events of the others, and done is how many of the events are then processed.
func (d *decision) closeWindows(ctx context.Context, windows []*window, events int) (closed []uint64, done int, wake time.Time, err error) {
	now := d.now()
	for _, w := range windows {
		if left := d.Collect - d.age(w.first); left > 0 {
			return closed, w.start, now.Add(left), nil
		}
		full, err := d.full()
		if err != nil {
			return closed, w.start, time.Time{}, err
		}
		if full {
			return closed, w.start, now, nil
		}
		if err := d.closeWindow(ctx, w); err != nil {
			return closed, w.start, time.Time{}, err
		}
		closed = append(closed, w.seqs...)
	}
	return closed, events, time.Time{}, nil
}

// full reports whether no further version can be announced or wait before this decision
// is committed and what is due is written.
func (d *decision) full() (bool, error) {
	q, err := d.queue()
	return len(d.sending) == maxPosts || q.Summary >= maxOfSummary, err
}

// closeWindow announces the image of a window, lets it wait, or records why it is not
// announced. If it returns an error, nothing of the window is decided.
func (d *decision) closeWindow(ctx context.Context, w *window) error {
	if !w.deleted && !w.private {
		if merged, err := d.merge(w); merged || err != nil {
			return err
		}
	}
	a, refused, err := d.announcementOf(ctx, w)
	if err != nil {
		return err
	}
	if refused.Reason != "" {
		for _, seq := range w.seqs {
			if err := d.putFirstResult(&d.b, seq, refused); err != nil {
				return err
			}
		}
		d.changed = true
		return nil
	}
	return d.place(ctx, a)
}

// announcementOf returns the announcement of a window with its facts, or the reason why there
// is none.
func (d *decision) announcementOf(ctx context.Context, w *window) (a *announcement, refused pushrow.Announce, err error) {
	a = &announcement{version: d.versionOf(w)}
	before, err := d.before(a.Repository, a.Digest)
	if err != nil {
		return a, refused, err
	}
	purge, err := d.Purged.UpTo(a.Repository)
	if err != nil {
		return a, refused, err
	}
	if w.first.Retry != nil || purge > 0 { // its refused post does not count, also in a later summary
		before, d.changed = before.Posted(), true
		if err := d.posts.RemoveRefused(&d.b, a.Repository, a.Digest); err != nil {
			return a, refused, err
		}
	}
	refused, err = d.checkWindow(ctx, w, a, before)
	if err == nil && refused.Reason == "" {
		refused.Reason, err = d.addFacts(ctx, a, w.first.Event)
	}
	return a, refused, err
}

func (s *Sink) versionOf(w *window) version {
	return version{
		Repository: w.first.Repository, Digest: w.first.ManifestDigest, Seqs: w.seqs, Tags: w.tags,
		Time: w.first.Time, TID: w.first.TID, ClockID: w.first.ClockID, Local: s.Storage.Local(w.first.Event),
	}
}

// place decides how a version is announced: now, after the cooldown of its repository, or
// in a summary.
func (d *decision) place(ctx context.Context, a *announcement) error {
	if err := d.compose(a); err != nil { // also if it waits: an image without a valid post is given up now
		return err
	}
	reason, row, err := d.waitsFor(a)
	switch {
	case err != nil:
		return err
	case reason == "":
		return d.addPost(ctx, a)
	case reason == waitsForCooldown:
		return d.wait(&a.version, row)
	}
	return d.waitForSummary(&a.version, reason)
}

// waitsFor says what an announcement has to wait for; "": for nothing. row is the cooldown of
// its repository.
func (d *decision) waitsFor(a *announcement) (reason string, row cooldown, err error) {
	if d.late(a.stamp(), 0) {
		return waitsSinceLate, row, nil
	}
	if row, err = d.cooldown(a.Repository); err != nil {
		return "", row, err
	}
	if d.cooling(row) > 0 || row.Waiting > 0 {
		return waitsForCooldown, row, nil
	}
	limited, err := d.limited()
	if limited {
		reason = waitsForDay
	}
	return reason, row, err
}

// checkWindow removes from an announcement the tags that it is not to name, or returns
// the reason why there is none.
func (s *Sink) checkWindow(ctx context.Context, w *window, a *announcement, before posted.Entries) (refused pushrow.Announce, err error) {
	if len(before) > 0 && len(s.newTags(w.tags, before)) == 0 {
		return s.announcedBefore(before), nil
	}
	if w.deleted {
		s.Metrics.Post("deleted")
		return pushrow.Announce{Reason: reasonDeleted}, nil
	}
	if w.private {
		return pushrow.Announce{Reason: reasonPrivate}, nil
	}
	if w.forgotten {
		return pushrow.Announce{Reason: reasonForgotten}, nil
	}
	if w.lostTag && !slices.ContainsFunc(w.tags, s.Tag) {
		return pushrow.Announce{Reason: reasonTagGone}, nil
	}
	tags, refused, err := s.check(ctx, &a.version, before)
	if err == nil && refused.Reason == "" {
		a.Tags = tags
	}
	return refused, err
}

// putFirstResult records a result for a push that has none: while an older window
// is open, later events are handled again.
func (s *Sink) putFirstResult(b *state.Batch, seq uint64, result pushrow.Announce) error {
	has, err := state.Has(s.State, pushrow.Key(seq, pushrow.AnnouncePart))
	if err != nil || has {
		return err
	}
	return pushrow.Put(b, seq, pushrow.AnnouncePart, result)
}
