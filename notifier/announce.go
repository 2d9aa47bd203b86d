package notifier

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/post"
	"github.com/tidings-dev/tidings/notifier/state"
)

// Announce says what is announced, and how.
type Announce struct {
	Tag       func(tag string) bool                             // which tags are news; nil: all
	Collect   time.Duration                                     // how long tags of one digest are waited for
	MaxAge    time.Duration                                     // older pushes are no news; 0: 1 h
	Retags    bool                                              // a later tag of an announced digest is news
	Langs     []string                                          // of the post's text
	Reference func(repository, tag string) string               // what follows "docker pull"; nil: no such line
	Link      func(repository, tag, digest string) (url string) // behind the name; nil: none
}

func (a *Announce) validate() error {
	if a.Collect < 0 || a.MaxAge < 0 {
		return errors.New("collect and max_age must not be negative")
	}
	if a.Tag == nil {
		a.Tag = func(string) bool { return true }
	}
	if a.MaxAge == 0 {
		a.MaxAge = time.Hour
	}
	return nil
}

// announceSink writes one post for each digest that is pushed to a public
// repository under a tag that is news. Tags of the same digest that come while
// its window is open are joined in the post, the first push gives its key and
// its time, and the cursor waits before the oldest open window. Once a digest
// is announced in a repository it is announced there again only under a tag that
// makes it a release of what was announced, or with Retags under any new tag.
//
// Before a post is sent, and before it is sent again, storage is asked whether
// the image is still there under the tags that the post names.
type announceSink struct {
	n *Notifier
	Announce
}

const announceName = "announce"

func (s *announceSink) name() string { return announceName }

func (s *announceSink) skip(uint64) error { return nil }

// A window collects the tags of one digest in one repository.
type window struct {
	at    int // position of its first event in what was handed over
	first sequenced
	seqs  []uint64
	tags  []string

	private bool // it was told to be private, and not pushed again

	// Only if storage can't be asked:
	gone  bool // it was deleted, and not pushed again
	moved bool // one of its tags was deleted, or set to another digest
}

// lose takes a tag from a window.
func (w *window) lose(tag string) {
	left := slices.DeleteFunc(w.tags, func(t string) bool { return t == tag })
	w.moved = w.moved || len(left) < len(w.tags)
	w.tags = left
}

// An announcement is a finished post under a fixed key, and what it was made of.
type announcement struct {
	Repository string     `json:"repository"`
	Digest     string     `json:"digest"`
	Seqs       []uint64   `json:"seqs"`
	Tags       []string   `json:"tags"` // in the order of their pushes; empty in what an earlier version wrote
	Time       time.Time  `json:"time"`
	TID        int64      `json:"tid"`
	ClockID    uint       `json:"clockId"`
	Local      bool       `json:"local"` // its image is in this registry's storage
	Facts      post.Facts `json:"facts"` // but for what depends on the tags
	Write      repo.Write `json:"write"`
}

// announcements are on their way together.
type announcements struct {
	Posts []announcement `json:"posts"`
}

// maxPosts is how many posts are sent in one call.
const maxPosts = 100

func (s *announceSink) outbox() *outbox { return &outbox{s.n, []byte("b/announce")} }

// resume settles what an earlier process, or a failed call, left on its way.
func (s *announceSink) resume(ctx context.Context) error {
	var all announcements
	ok, err := s.outbox().load(&all)
	if err != nil || !ok {
		return err
	}
	changed, err := s.recheck(ctx, &all)
	if err != nil {
		return err
	}
	if changed {
		if err := s.outbox().put(&state.Batch{}, &all); err != nil {
			return err
		}
	}
	return s.send(ctx, &all, false)
}

// recheck looks again at the posts that are not made: at the gate, at their age,
// and whether their images still have their tags. It reports whether there are
// others now, or fewer.
func (s *announceSink) recheck(ctx context.Context, all *announcements) (changed bool, err error) {
	for i := len(all.Posts) - 1; i >= 0; i-- {
		a := &all.Posts[i]
		made, err := s.n.made(a.Write)
		if errors.Is(err, errDifferent) || made || len(a.Tags) == 0 {
			continue // send gives it up or finds it made; what an earlier version wrote is sent as it is
		}
		if err != nil {
			return changed, err
		}
		before, err := s.n.announced(a.Repository, a.Digest)
		if err != nil {
			return changed, err
		}
		tags, none, err := s.still(ctx, a, before)
		if err != nil {
			return changed, err
		}
		if none.Reason == "" && len(tags) < len(a.Tags) {
			a.Tags, changed = tags, true
			if err := s.compose(a); err != nil {
				none.Reason = err.Error()
			}
		}
		if none.Reason != "" {
			batch := &state.Batch{}
			for _, seq := range a.Seqs {
				if err := putResult(batch, seq, none); err != nil {
					return changed, err
				}
			}
			if err := s.n.State.Commit(batch, state.NoSync); err != nil {
				return changed, err
			}
			s.n.log.Info("not announced: "+none.Reason, "repository", a.Repository, "digest", a.Digest)
			all.Posts = append(all.Posts[:i], all.Posts[i+1:]...)
			changed = true
		}
	}
	return changed, nil
}

// still returns the tags that an announcement has still and that are news after
// what was announced before, or the reason why it is not to be made.
func (s *announceSink) still(ctx context.Context, a *announcement, before announced) (tags []string, none announceResult, err error) {
	private, err := s.n.hidden(a.Repository, a.Digest, slices.Max(a.Seqs))
	if err != nil {
		return nil, none, err
	}
	if private {
		return nil, announceResult{Reason: reasonPrivate}, nil
	}
	if !s.n.Public(a.Repository) {
		return nil, announceResult{Reason: "not public any more"}, nil
	}
	if s.n.clock.age(stamp{a.Time, a.TID, a.ClockID}) > s.MaxAge {
		s.n.Metrics.post("old")
		return nil, announceResult{Reason: "too old to be news"}, nil
	}
	tags = a.Tags
	if a.Local && s.n.Storage != nil {
		has, err := s.n.Storage.Has(ctx, a.Repository, a.Digest)
		if err != nil && !errors.Is(err, errUnreadable) {
			return nil, none, err
		}
		if err == nil && !has {
			s.n.Metrics.post("deleted")
			return nil, announceResult{Reason: reasonDeleted}, nil
		}
		if tags, err = s.n.pointing(ctx, a.Repository, a.Digest, a.Tags); err != nil {
			return nil, none, err
		}
	}
	if !slices.ContainsFunc(tags, s.Tag) {
		if slices.ContainsFunc(a.Tags, s.Tag) {
			return nil, announceResult{Reason: reasonTagGone}, nil
		}
		return nil, announceResult{Reason: "no tag that is announced"}, nil
	}
	if tags = s.news(tags, before); len(tags) == 0 {
		return nil, s.before(before), nil
	}
	return tags, none, nil
}

// before says why a digest is not announced again, and where it was.
func (s *announceSink) before(before announced) announceResult {
	if rkey := before.last(); rkey != "" {
		return announceResult{PostURI: s.n.postURI(rkey), Before: true, Reason: "announced before"}
	}
	return announceResult{Reason: "its announcement was given up before"}
}

const (
	reasonDeleted = "deleted before it was announced"
	reasonPrivate = "private"
	reasonTagGone = "its tag was moved or deleted before it was announced"
)

func (s *announceSink) handle(ctx context.Context, events []sequenced) (int, time.Time, error) {
	if err := s.resume(ctx); err != nil {
		return 0, time.Time{}, err
	}
	windows, err := s.windows(events)
	if err != nil {
		return 0, time.Time{}, err
	}
	all, done, wake, err := s.gather(ctx, windows, len(events))
	if len(all.Posts) == 0 {
		return done, wake, err
	}
	// An error is met again, by itself, once these are sent.
	if err := s.outbox().put(&state.Batch{}, all); err != nil {
		return 0, time.Time{}, err
	}
	if err := s.send(ctx, all, true); err != nil {
		return 0, time.Time{}, err
	}
	return done, wake, nil
}

// windows opens a window for each digest that may be announced, in the order
// of their first events. Pushes that never can be get their result at once.
func (s *announceSink) windows(events []sequenced) ([]*window, error) {
	var order []*window
	open := map[string]*window{}
	batch := &state.Batch{}
	for i, e := range events {
		id := e.Repository + "\x00" + e.ManifestDigest
		if e.Operation == opDelete {
			if w := open[id]; w != nil && !s.n.local(e.Event) {
				w.gone, w.tags = true, nil
			}
			continue
		}
		if e.Tag != "" && !s.n.local(e.Event) && (e.Operation == opPush || e.Operation == opUntag) {
			for _, w := range order {
				if w.first.Repository == e.Repository && (w.first.ManifestDigest != e.ManifestDigest || e.Operation == opUntag) {
					w.lose(e.Tag)
				}
			}
		}
		if e.Operation != opPush {
			continue
		}
		if w := open[id]; w != nil {
			w.private = e.private()
		}
		reason := e.unannounced()
		if reason == "" && !s.n.Public(e.Name()) {
			reason = "not public"
		}
		if reason != "" {
			if err := s.result(batch, e.seq, announceResult{Reason: reason}); err != nil {
				return nil, err
			}
			continue
		}
		w := open[id]
		if w == nil || s.age(w.first)-s.age(e) >= s.Collect {
			w = &window{at: i, first: e}
			open[id] = w
			order = append(order, w)
		}
		w.seqs = append(w.seqs, e.seq)
		w.tags = append(w.tags, e.Tag)
		w.gone = false
	}
	return order, s.n.State.Commit(batch, state.NoSync)
}

func (s *announceSink) age(e sequenced) time.Duration { return s.n.clock.age(e.stamp()) }

// unannounced is why a push never becomes a post, empty if it may become one.
func (e *Event) unannounced() string {
	switch {
	case e.private():
		return reasonPrivate
	case plan(e).Post:
		return ""
	case e.Foreign:
		return "an image of another owner, and nobody here knows where to pull it"
	case e.unreadable != nil:
		return "its manifest can't be read"
	case e.Tag == "":
		return "pushed without a tag"
	case e.Manifest.Subject != nil:
		return "not announced, since it describes another manifest, its subject"
	}
	return fmt.Sprintf("not announced, since its kind is %s and it is neither an image nor an index of images", e.Kind)
}

// gather ends windows, up to the first that is open still: each with a post,
// or with the reason why there is none. It says how many of the events are
// then done.
func (s *announceSink) gather(ctx context.Context, windows []*window, events int) (all *announcements, done int, wake time.Time, err error) {
	all = &announcements{}
	posted := map[string]announced{} // in this call
	now := s.n.Now()
	for _, w := range windows {
		if left := s.Collect - s.age(w.first); left > 0 {
			return all, w.at, now.Add(left), nil
		}
		if len(all.Posts) == maxPosts {
			return all, w.at, now, nil
		}
		a := &announcement{
			Repository: w.first.Repository, Digest: w.first.ManifestDigest, Seqs: w.seqs, Tags: w.tags,
			Time: w.first.Time, TID: w.first.TID, ClockID: w.first.ClockID, Local: s.n.local(w.first.Event),
		}
		id := string(announcedKey(a.Repository, a.Digest))
		before, err := s.n.announced(a.Repository, a.Digest)
		if err != nil {
			return all, w.at, time.Time{}, err
		}
		before = append(before, posted[id]...)
		none, err := s.check(ctx, w, a, before)
		if err != nil {
			return all, w.at, time.Time{}, err
		}
		if none.Reason != "" {
			if err := s.results(w, none); err != nil {
				return all, w.at, time.Time{}, err
			}
			continue
		}
		reason, err := s.facts(ctx, a, w.first.Event)
		if err != nil {
			return all, w.at, time.Time{}, err
		}
		if reason != "" {
			if err := s.results(w, announceResult{Reason: reason}); err != nil {
				return all, w.at, time.Time{}, err
			}
			continue
		}
		if err := s.compose(a); err != nil {
			return all, w.at, time.Time{}, err
		}
		all.Posts = append(all.Posts, *a)
		posted[id] = append(posted[id], announcedPost{a.Write.RKey, a.Tags})
	}
	return all, events, time.Time{}, nil
}

// news returns the tags of a window that are to be announced after what was
// announced of its digest before: all, none, or those that no post names.
func (s *announceSink) news(tags []string, before announced) []string {
	if len(before) == 0 {
		return tags
	}
	named := func(tag string) bool {
		return before.names(func(t string) bool { return t == tag })
	}
	unnamed := slices.DeleteFunc(slices.Clone(tags), named)
	isNews := slices.ContainsFunc(unnamed, func(tag string) bool {
		return s.Tag(tag) && (s.Retags || before.names(func(t string) bool { return releases(tag, t) }))
	})
	if !isNews {
		return nil
	}
	return unnamed
}

// check leaves an announcement the tags that it is to name, or gives the reason
// why it is not to be made.
func (s *announceSink) check(ctx context.Context, w *window, a *announcement, before announced) (none announceResult, err error) {
	if len(before) > 0 && len(s.news(w.tags, before)) == 0 {
		return s.before(before), nil
	}
	if w.gone {
		s.n.Metrics.post("deleted")
		return announceResult{Reason: reasonDeleted}, nil
	}
	if w.private {
		return announceResult{Reason: reasonPrivate}, nil
	}
	if w.moved && !slices.ContainsFunc(w.tags, s.Tag) {
		return announceResult{Reason: reasonTagGone}, nil
	}
	tags, none, err := s.still(ctx, a, before)
	if err == nil && none.Reason == "" {
		a.Tags = tags
	}
	return none, err
}

// facts fills in what the post says about the image, whatever its tags are, or
// says why there is nothing to post about.
func (s *announceSink) facts(ctx context.Context, a *announcement, e *Event) (reason string, err error) {
	d := declared(e)
	if s.n.local(e) {
		d, err = s.n.describe(ctx, a.Repository, a.Digest)
	}
	switch {
	case errors.Is(err, ErrNotStored):
		return reasonDeleted, nil
	case errors.Is(err, errUnreadable): // it is believed, but for its size
		d = declared(e)
		d.Size = 0
	case err != nil:
		return "", err
	}
	if d.Images == 0 {
		return "an index without an image", nil
	}
	a.Facts = post.Facts{
		Repository: a.Repository, Digest: a.Digest, Size: d.Size, Images: d.Images, Layers: d.Layers, Platforms: d.Platforms,
	}
	return "", nil
}

// compose finishes the post of an announcement. Its key and time are the first
// push's.
func (s *announceSink) compose(a *announcement) error {
	facts := a.Facts
	facts.Tags = s.newsFirst(a.Tags)
	if s.Reference != nil {
		facts.Reference = s.Reference(a.Repository, facts.Tags[0])
	}
	facts.Link = s.link(a, facts.Tags[0])
	record, err := post.Compose(facts, s.Langs, time.UnixMicro(a.TID))
	if err != nil {
		return &permanentError{fmt.Errorf("write post: %w", err)}
	}
	post.SetOrigin(record, post.Image{Repository: a.Repository, Tag: facts.Tags[0], Digest: a.Digest})
	bytes, err := post.Encode(record)
	if err != nil {
		return &permanentError{err}
	}
	a.Write = repo.Write{Action: repo.Create, Collection: lexicon.NSIDPost, RKey: tid(a.TID, a.ClockID), Record: bytes}
	return nil
}

// link is the address that the post points to, empty if there is none or one that
// no post takes.
func (s *announceSink) link(a *announcement, tag string) string {
	if s.Link == nil {
		return ""
	}
	link := s.Link(a.Repository, tag, a.Digest)
	if link == "" {
		return ""
	}
	if err := post.CheckLink(link); err != nil {
		s.n.log.Warn("a post goes out without its link", "repository", a.Repository, "tag", tag, "err", err)
		return ""
	}
	return link
}

// newsFirst lists each tag once, in the order of their pushes, with the first
// that is news in front: of those that are no pre-releases, if there is one.
func (s *announceSink) newsFirst(tags []string) []string {
	var list []string
	seen := map[string]bool{}
	for _, t := range tags {
		if !seen[t] {
			seen[t] = true
			list = append(list, t)
		}
	}
	first := slices.IndexFunc(list, func(t string) bool { return s.Tag(t) && !preRelease.MatchString(t) })
	if first < 0 {
		first = slices.IndexFunc(list, s.Tag)
	}
	if first > 0 {
		tag := list[first]
		copy(list[1:first+1], list[:first])
		list[0] = tag
	}
	return list
}

func (s *announceSink) uri(a *announcement) string { return s.n.postURI(a.Write.RKey) }

// results leaves the same result for each push of a window.
func (s *announceSink) results(w *window, result announceResult) error {
	batch := &state.Batch{}
	for _, seq := range w.seqs {
		if err := s.result(batch, seq, result); err != nil {
			return err
		}
	}
	return s.n.State.Commit(batch, state.NoSync)
}

// result leaves a result for a push that has none yet: while an older window is
// open, events behind it are met again.
func (s *announceSink) result(batch *state.Batch, seq uint64, result announceResult) error {
	has, err := s.n.getResult(seq, 'a', &announceResult{})
	if err != nil || has {
		return err
	}
	return putResult(batch, seq, result)
}

// send makes the posts, and remembers that they are made. One that can never
// be made is given up, and the others go on.
func (s *announceSink) send(ctx context.Context, all *announcements, first bool) error {
	for {
		writes := make([]repo.Write, len(all.Posts))
		for i, a := range all.Posts {
			writes[i] = a.Write
		}
		err := s.n.deliver(ctx, writes, first)
		var at *repo.WriteError
		if !errors.As(err, &at) {
			if err != nil {
				return err
			}
			return s.finish(all)
		}
		if err := s.drop(all, at); err != nil {
			return err
		}
		first = false
	}
}

func (s *announceSink) finish(all *announcements) error {
	batch := &state.Batch{}
	for _, a := range all.Posts {
		if err := s.remember(batch, &a, announceResult{PostURI: s.uri(&a)}); err != nil {
			return err
		}
		s.n.Metrics.post("posted")
		s.n.log.Info("announced", "repository", a.Repository, "digest", a.Digest, "post", s.uri(&a))
	}
	return s.outbox().clear(batch)
}

// drop gives up a post that the repository will never take. It is remembered
// as announced, so that its window does not open again.
func (s *announceSink) drop(all *announcements, at *repo.WriteError) error {
	if at.Index < 0 || at.Index >= len(all.Posts) {
		return at
	}
	a := all.Posts[at.Index]
	for _, seq := range a.Seqs {
		if err := s.n.letter(s.name(), seq, at); err != nil {
			return err
		}
	}
	all.Posts = append(all.Posts[:at.Index], all.Posts[at.Index+1:]...)
	batch := &state.Batch{}
	if err := s.remember(batch, &a, announceResult{Reason: at.Error()}); err != nil {
		return err
	}
	return s.outbox().put(batch, all)
}

// remember notes in an indexed batch what became of a digest's announcement.
func (s *announceSink) remember(batch *state.Batch, a *announcement, result announceResult) error {
	rkey := ""
	if result.PostURI != "" {
		rkey = a.Write.RKey
	}
	tags := a.Tags
	if len(tags) > 0 {
		tags = s.newsFirst(tags)
	}
	if err := s.n.addAnnounced(batch, a.Repository, a.Digest, announcedPost{rkey, tags}); err != nil {
		return err
	}
	for _, seq := range a.Seqs {
		if err := putResult(batch, seq, result); err != nil {
			return err
		}
	}
	return nil
}
