package announce

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/notifier/announce/posted"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/post"
	"github.com/tidings-dev/tidings/notifier/pushrow"
	"github.com/tidings-dev/tidings/notifier/state"
)

// Reasons that the API shows for versions that wait.
const (
	waitsForCooldown = "waiting: cooldown of the repository until "
	waitsForDay      = "waiting: in the summary of the day, since the daily limit is reached"
	waitsSinceLate   = "waiting: in the next summary, since it was pushed longer ago than max_age"
	waitsSinceMany   = "waiting: in the next summary, since many versions wait"
)

// A decision collects what the sink decides about events or about versions that wait. It
// is committed at once, with the posts that it puts into the outbox.
type decision struct {
	*Sink
	b       state.Batch
	sending []announcement
	added   map[string]posted.Entries // by the posts, by image
	changed bool                      // b has something
	durable bool                      // b has something that no event leads to again

	retracted []string // record keys of the posts that are deleted with their images
}

func (s *Sink) newDecision() *decision {
	return &decision{Sink: s, added: map[string]posted.Entries{}}
}

// commit makes the decision durable and sends the posts.
func (d *decision) commit(ctx context.Context) error {
	if len(d.sending) > 0 && d.DryRun {
		return d.commitDry(ctx)
	}
	if len(d.sending) > 0 {
		batch := &announcementBatch{d.sending}
		if err := d.outbox().Put(&d.b, batch); err != nil {
			return err
		}
		return d.send(ctx, batch, true)
	}
	if !d.changed {
		return nil
	}
	durability := state.NoSync
	if d.durable {
		durability = state.Sync
	}
	return d.State.Commit(&d.b, durability)
}

func imageID(repository, digest string) string { return repository + "\x00" + digest }

// before is what was announced of an image, also by this decision.
func (d *decision) before(repository, digest string) (posted.Entries, error) {
	before, err := d.posts.Get(repository, digest)
	return append(before, d.added[imageID(repository, digest)]...), err
}

// addPost adds a post, with the versions that it stands for as well.
func (d *decision) addPost(ctx context.Context, a *announcement) error {
	if err := d.addDocument(ctx, a); err != nil {
		return err
	}
	d.sending = append(d.sending, *a)
	for _, v := range append(a.Others, a.version) {
		id := imageID(v.Repository, v.Digest)
		d.added[id] = append(d.added[id], posted.Entry{RKey: a.Write.RKey, Tags: v.Tags})
	}
	if err := d.countPost(); err != nil || d.Cooldown == 0 {
		return err
	}
	row, err := d.cooldown(a.Repository)
	if err != nil {
		return err
	}
	row.Posted = newStamp(d.clock)
	return d.setCooldown(row)
}

// wait lets a version wait for the end of the cooldown of its repository, or for a
// summary if there are too many.
func (d *decision) wait(v *version, row cooldown) error {
	q, err := d.queue()
	if err != nil {
		return err
	}
	if row.Waiting >= maxOfRepository || q.Cooling >= maxWaiting {
		return d.waitForSummary(v, waitsSinceMany)
	}
	row.Waiting++
	q.Cooling++
	if err := d.setCooldown(row); err != nil {
		return err
	}
	if err := d.setQueue(q); err != nil {
		return err
	}
	return d.putWaiting(groupOf(v.Repository), v, waitsForCooldown+d.cooledAt(row))
}

// cooledAt is when a cooldown ends.
func (s *Sink) cooledAt(row cooldown) string {
	return row.Posted.At.Add(s.Cooldown).UTC().Format(time.RFC3339)
}

// waitForSummary lets a version wait for the next summary.
func (d *decision) waitForSummary(v *version, reason string) error {
	q, err := d.queue()
	if err != nil {
		return err
	}
	q.Summary++
	switch {
	case reason == waitsSinceLate:
		q.Late++
	case q.Day == "":
		q.Day = d.today()
	}
	if err := d.setQueue(q); err != nil {
		return err
	}
	short := *v
	short.Facts = post.Facts{}
	return d.putWaiting(summaryGroup, &short, reason)
}

// putWaiting writes the row of a version that waits, and the result of its pushes.
func (d *decision) putWaiting(g groupID, v *version, reason string) error {
	d.durable = true
	if err := d.set(waitingKey(g, v.Repository, v.Digest), v); err != nil {
		return err
	}
	d.Metrics.Post("waiting")
	return d.result(v.Seqs, pushrow.Announce{Waiting: true, Reason: reason})
}

// merge adds the pushes of a window to a version of the same image that waits; false if
// none waits.
func (d *decision) merge(w *window) (bool, error) {
	for _, g := range []groupID{groupOf(w.first.Repository), summaryGroup} {
		key := waitingKey(g, w.first.Repository, w.first.ManifestDigest)
		var v version
		if ok, err := d.get(key, &v); err != nil {
			return false, err
		} else if !ok {
			continue
		}
		var row pushrow.Announce
		if _, err := d.get(pushrow.Key(v.Seqs[0], pushrow.AnnouncePart), &row); err != nil {
			return false, err
		}
		seqs := slices.DeleteFunc(slices.Clone(w.seqs), func(seq uint64) bool { return slices.Contains(v.Seqs, seq) }) // after a rewind
		kept := min(len(seqs), max(0, maxPushes-len(v.Seqs)))
		v.Seqs = append(v.Seqs, seqs[:kept]...)
		v.Tags = mergeTags(v.Tags, w.tags)
		d.durable = true
		if err := d.set(key, &v); err != nil {
			return false, err
		}
		if err := d.result(seqs[:kept], pushrow.Announce{Waiting: true, Reason: row.Reason}); err != nil {
			return false, err
		}
		return true, d.result(seqs[kept:], pushrow.Announce{Reason: "pushed again while it waits to be announced"})
	}
	return false, nil
}

// removeCooling removes versions that wait for the end of the cooldown of their repository.
func (d *decision) removeCooling(row cooldown, versions []version) error {
	q, err := d.queue()
	if err != nil {
		return err
	}
	for _, v := range versions {
		d.b.Delete(waitingKey(groupOf(v.Repository), v.Repository, v.Digest))
	}
	d.durable = true
	q.Cooling = max(0, q.Cooling-len(versions))
	row.Waiting = max(0, row.Waiting-len(versions))
	if err := d.setQueue(q); err != nil {
		return err
	}
	return d.setCooldown(row)
}

// result records the result of pushes.
func (d *decision) result(seqs []uint64, result pushrow.Announce) error {
	d.changed = true
	for _, seq := range seqs {
		if err := pushrow.Put(&d.b, seq, pushrow.AnnouncePart, result); err != nil {
			return err
		}
	}
	return nil
}

func (d *decision) get(key []byte, into any) (bool, error) {
	found, err := state.GetJSON(func(key []byte) ([]byte, error) { return d.b.Get(d.State, key) }, key, into)
	if err != nil {
		return false, fmt.Errorf("read announcements: %w", err)
	}
	return found, nil
}

func (d *decision) set(key []byte, row any) error {
	if err := d.b.SetJSON(key, row); err != nil {
		return fmt.Errorf("write announcements: %w", err)
	}
	d.changed = true
	return nil
}

func (d *decision) cooldown(repository string) (row cooldown, err error) {
	row.Repository = repository
	_, err = d.get(cooldownKey(repository), &row)
	return row, err
}

func (d *decision) setCooldown(row cooldown) error {
	d.durable = true
	return d.set(cooldownKey(row.Repository), row)
}

func (d *decision) queue() (q queue, err error) {
	_, err = d.get(state.AnnounceQueue, &q)
	return q, err
}

func (d *decision) setQueue(q queue) error {
	d.durable = true
	return d.set(state.AnnounceQueue, q)
}

// late reports whether a push is too old for a post of its own.
func (s *Sink) late(at event.Stamp, waited time.Duration) bool {
	return s.clock.Age(at) > s.MaxAge+waited
}
