package notifier

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/post"
)

// Announce says what is announced, and how.
type Announce struct {
	Tag       func(tag string) bool                             // which tags are news; nil: all
	Collect   time.Duration                                     // how long tags of one digest are waited for
	MaxAge    time.Duration                                     // older pushes are no news; 0: 1 h
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
// is announced in a repository it is never announced there again.
type announceSink struct {
	n *Notifier
	Announce
}

func (s *announceSink) name() string { return "announce" }

// A window collects the tags of one digest in one repository.
type window struct {
	at    int // position of its first event in what was handed over
	until time.Time
	event *Event
	seqs  []uint64
	tags  []string
	news  bool // one of the tags is
	gone  bool // it was deleted; what was pushed again since is news or not
}

// An announcement is finished bytes under a fixed key.
type announcement struct {
	Repository string     `json:"repository"`
	Digest     string     `json:"digest"`
	Seqs       []uint64   `json:"seqs"`
	Write      repo.Write `json:"write"`
}

// announcements are on their way together.
type announcements struct {
	Posts []announcement `json:"posts"`
}

// maxPosts is how many posts are sent in one call.
const maxPosts = 100

// announced is what is remembered of a digest that was announced.
type announced struct {
	PostURI string `json:"postUri"` // empty when the post was given up
}

func (s *announceSink) outbox() *outbox { return &outbox{s.n, []byte("b/announce")} }

func (s *announceSink) resume(ctx context.Context) error {
	var all announcements
	ok, err := s.outbox().load(&all)
	if err != nil || !ok {
		return err
	}
	return s.send(ctx, &all)
}

func (s *announceSink) handle(ctx context.Context, events []sequenced) (int, time.Time, error) {
	if err := s.resume(ctx); err != nil {
		return 0, time.Time{}, err
	}
	if err := s.learn(events); err != nil {
		return 0, time.Time{}, err
	}
	windows, err := s.windows(events)
	if err != nil {
		return 0, time.Time{}, err
	}
	all, done, wake, err := s.gather(windows, len(events))
	if len(all.Posts) == 0 {
		return done, wake, err
	}
	// An error is met again, by itself, once these are sent.
	if err := s.outbox().put(s.n.State.NewBatch(), all); err != nil {
		return 0, time.Time{}, err
	}
	if err := s.send(ctx, all); err != nil {
		return 0, time.Time{}, err
	}
	return done, wake, nil
}

// windows opens a window for each digest that may be announced, in the order
// of their first events. Pushes that never can be get their result at once.
func (s *announceSink) windows(events []sequenced) ([]*window, error) {
	var order []*window
	open := map[string]*window{}
	batch := s.n.State.NewBatch()
	for i, e := range events {
		id := string(announcedKey(e.Repository, e.ManifestDigest))
		if e.Operation == opDelete {
			if w := open[id]; w != nil {
				w.news, w.gone = false, true
			}
			continue
		}
		if e.Operation != opPush {
			continue
		}
		if !plan(e.Event).Post || !s.n.Public(e.Name()) {
			if err := putResult(batch, e.seq, announceResult{Reason: e.unannounced()}); err != nil {
				return nil, err
			}
			continue
		}
		w := open[id]
		if w == nil || !e.Time.Before(w.until) {
			w = &window{at: i, until: e.Time.Add(s.Collect), event: e.Event}
			open[id] = w
			order = append(order, w)
		}
		w.seqs = append(w.seqs, e.seq)
		w.tags = append(w.tags, e.Tag)
		w.news = w.news || s.Tag(e.Tag)
	}
	return order, s.n.State.Commit(batch, pebble.NoSync)
}

// unannounced is why an event never becomes a post, if one might expect one.
func (e *Event) unannounced() string {
	if e.Foreign {
		return "an image of another owner, and nobody here knows where to pull it"
	}
	return ""
}

// gather ends windows, up to the first that is open still: each with a post,
// or with the reason why there is none. It says how many of the events are
// then done.
func (s *announceSink) gather(windows []*window, events int) (all *announcements, done int, wake time.Time, err error) {
	all = &announcements{}
	posted := map[string]announced{}
	now := s.n.Now()
	for _, w := range windows {
		if w.until.After(now) {
			return all, w.at, w.until, nil
		}
		if len(all.Posts) == maxPosts {
			return all, w.at, now, nil
		}
		id := string(announcedKey(w.event.Repository, w.event.ManifestDigest))
		before, done := posted[id]
		if !done {
			if before, done, err = s.announced(w.event.Repository, w.event.ManifestDigest); err != nil {
				return all, w.at, time.Time{}, err
			}
		}
		if reason := s.silent(w, before, done, now); reason != "" {
			if err := s.results(w, announceResult{Reason: reason}); err != nil {
				return all, w.at, time.Time{}, err
			}
			continue
		}
		a, err := s.compose(w)
		if err != nil {
			return all, w.at, time.Time{}, err
		}
		all.Posts = append(all.Posts, *a)
		posted[id] = announced{s.uri(a)}
	}
	return all, events, time.Time{}, nil
}

// silent is why a window ends without a post; empty if it ends with one.
func (s *announceSink) silent(w *window, before announced, done bool, now time.Time) string {
	switch {
	case done:
		return "announced before, in " + before.PostURI
	case !w.news && w.gone:
		s.n.Metrics.post("deleted")
		return "deleted before it was announced"
	case !w.news:
		return "no tag that is announced"
	case now.Sub(w.event.Time) > s.MaxAge:
		s.n.Metrics.post("old")
		return "too old to be news"
	}
	return ""
}

// compose finishes the post of a window. Its key and time are the first
// push's.
func (s *announceSink) compose(w *window) (*announcement, error) {
	e := w.event
	tags := s.newsFirst(w.tags)
	facts := post.Facts{
		Repository: e.Repository,
		Tags:       tags,
		Digest:     e.ManifestDigest,
		Size:       sizeOf(&e.Manifest),
		Layers:     len(e.Manifest.Layers),
		Platforms:  platformsOf(&e.Manifest),
	}
	if e.Kind == KindIndex {
		facts.Size = s.sizeOfIndex(e)
	}
	if s.Reference != nil {
		facts.Reference = s.Reference(e.Repository, tags[0])
	}
	if s.Link != nil {
		facts.Link = s.Link(e.Repository, tags[0], e.ManifestDigest)
	}
	record, err := post.Compose(facts, s.Langs, time.UnixMicro(e.TID))
	if err != nil {
		return nil, &permanentError{fmt.Errorf("write post: %w", err)}
	}
	bytes, err := lexicon.Encode(record)
	if err == nil {
		_, err = lexicon.Validate(lexicon.NSIDPost, bytes)
	}
	if err != nil {
		return nil, &permanentError{fmt.Errorf("encode post: %w", err)}
	}
	return &announcement{
		Repository: e.Repository,
		Digest:     e.ManifestDigest,
		Seqs:       w.seqs,
		Write:      repo.Write{Action: repo.Create, Collection: lexicon.NSIDPost, RKey: e.ID(), Record: bytes},
	}, nil
}

// newsFirst lists each tag once, in the order of their pushes, with the first
// that is news in front.
func (s *announceSink) newsFirst(tags []string) []string {
	var list []string
	seen := map[string]bool{}
	for _, t := range tags {
		if !seen[t] {
			seen[t] = true
			list = append(list, t)
		}
	}
	for i, t := range list {
		if s.Tag(t) {
			copy(list[1:i+1], list[:i])
			list[0] = t
			break
		}
	}
	return list
}

// results leaves the same result for each push of a window that has none yet:
// while an older window is open, one that is closed is met again.
func (s *announceSink) results(w *window, result announceResult) error {
	batch := s.n.State.NewBatch()
	for _, seq := range w.seqs {
		has, err := s.n.getResult(seq, 'a', &announceResult{})
		if err != nil {
			return err
		}
		if has {
			continue
		}
		if err := putResult(batch, seq, result); err != nil {
			return err
		}
	}
	return s.n.State.Commit(batch, pebble.NoSync)
}

func (s *announceSink) uri(a *announcement) string {
	return "at://" + s.n.Account + "/" + lexicon.NSIDPost + "/" + a.Write.RKey
}

// send makes the posts, and remembers that they are made. One that can never
// be made is given up, and the others go on.
func (s *announceSink) send(ctx context.Context, all *announcements) error {
	for {
		writes := make([]repo.Write, len(all.Posts))
		for i, a := range all.Posts {
			writes[i] = a.Write
		}
		err := s.n.deliver(ctx, writes)
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
	}
}

func (s *announceSink) finish(all *announcements) error {
	batch := s.n.State.NewBatch()
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
		if err := s.n.DeadLetters.add(s.name(), seq, seq, at.Error(), nil); err != nil {
			return err
		}
	}
	s.n.Metrics.dead(s.name(), len(a.Seqs))
	s.n.log.Error("a post is given up", "repository", a.Repository, "digest", a.Digest, "reason", at)
	all.Posts = append(all.Posts[:at.Index], all.Posts[at.Index+1:]...)
	batch := s.n.State.NewBatch()
	if err := s.remember(batch, &a, announceResult{Reason: at.Error()}); err != nil {
		return err
	}
	return s.outbox().put(batch, all)
}

// remember notes what became of a digest's announcement.
func (s *announceSink) remember(batch *pebble.Batch, a *announcement, result announceResult) error {
	val, err := json.Marshal(announced{result.PostURI})
	if err != nil {
		return err
	}
	if err := batch.Set(announcedKey(a.Repository, a.Digest), val, nil); err != nil {
		return err
	}
	for _, seq := range a.Seqs {
		if err := putResult(batch, seq, result); err != nil {
			return err
		}
	}
	return nil
}

func (s *announceSink) announced(repository, digest string) (announced, bool, error) {
	var a announced
	val, closer, err := s.n.State.Get(announcedKey(repository, digest))
	if errors.Is(err, pebble.ErrNotFound) {
		return a, false, nil
	}
	if err != nil {
		return a, false, fmt.Errorf("read announcements: %w", err)
	}
	defer closer.Close()
	if err := json.Unmarshal(val, &a); err != nil {
		return a, false, fmt.Errorf("read announcements: %w", err)
	}
	return a, true, nil
}

func announcedKey(repository, digest string) []byte {
	return []byte("a/d/" + repository + "\x00" + digest)
}
