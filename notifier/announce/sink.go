package announce

import (
	"context"
	"errors"
	"time"

	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/announce/decided"
	"github.com/tidings-dev/tidings/notifier/announce/posted"
	"github.com/tidings-dev/tidings/notifier/delivery"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/forgotten"
	"github.com/tidings-dev/tidings/notifier/publication"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/versions"
)

// Name is the name of the sink.
const Name = "announce"

// A Sink writes posts for images that are pushed to public repositories under tags that are
// announced.
//
// The first push of a digest opens a window of the length Collect, which collects its
// further tags. The sink's cursor stays before the oldest open window, so that a window
// survives a restart: its events are read again. When a window closes, the sink decides:
//
//   - The image has a post, with the key and the time of its first push.
//   - It waits for the end of the cooldown of its repository. Then one post is about the
//     newest version that waits, and says how many others there are.
//   - It waits for a summary, because it is older than MaxAge or the posts of the day are
//     used up. A summary is one post for all that wait.
//   - It is not announced, for a reason that is recorded.
//
// A waiting version does not hold the journal back: it is a row in the state (waiting.go). One
// commit has the decisions, rows and results, the numbers of the events (decided.go), and
// the outbox with the posts that are to be sent; then the cursor moves. So a version is in
// one place at any time: in the journal after the decided events, waiting, in the outbox, or
// in the history. Crash cases:
//
//   - Before the commit: the events are read again. Nothing was sent.
//   - After it: the batch in the outbox is confirmed before anything else, with the same
//     keys and bytes. A post that is not in the repo yet is checked again; if its image is
//     gone, the next version of the post takes its place, and if it has become too old, it
//     and the versions that it stands for wait for a summary, in the commit that puts the
//     smaller batch.
//   - After the outbox was cleared, before the cursor has moved: the events are read again
//     and skipped, because they are decided.
//   - The state of an earlier version of the program has no decided events: the history and
//     the result of a push prevent a second post.
//
// A digest that was announced in a repository is announced there again only under a
// tag that makes it the release of an announced pre-release, or with Retags under
// any new tag.
//
// All ages are those of event.Clock, so a jump of the system clock ends no cooldown; the
// day of the daily limit is that of the system clock.
type Sink struct {
	sink.Deps
	Config
	posts    *posted.History
	versions *versions.Store
	clock    *event.Clock

	forgotten *forgotten.Store
	now       func() time.Time

	turn chan struct{} // has an element while a method of the sink runs

	deletes *delivery.Repo // deletes posts
	retry   time.Time      // of deletes that failed
	cards   cards
	site    *publication.Writer // nil: posts have no documents
	refs    publication.References
}

// New returns the sink. It adds its posts to the history, deletes posts and updates documents
// with unhurried, and tells the age of a push by clock.
func New(deps sink.Deps, unhurried delivery.Publisher, cfg Config, posts *posted.History, clock *event.Clock, now func() time.Time) (*Sink, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Sink{
		Deps: deps, Config: cfg, posts: posts, versions: versions.New(deps.State), forgotten: forgotten.New(deps.State),
		clock: clock, now: now, deletes: delivery.NewRepo(unhurried), turn: make(chan struct{}, 1),
	}
	// The key of a summary is in no event.
	q, err := s.newDecision().queue()
	if err != nil {
		return nil, err
	}
	clock.Continue(q.Last.TID, q.Last.ClockID)
	s.refs = publication.References{
		State: deps.State, Account: delivery.NewRepo(unhurried), DID: posts.Account(), Deleting: s.deleting, Now: now, Metrics: deps.Metrics, Log: deps.Log,
	}
	if cfg.Site != nil {
		s.site = &publication.Writer{Site: cfg.Site, Account: deps.Account, DryRun: cfg.DryRun, Now: now, Log: deps.Log}
	}
	return s, nil
}

// begin waits for the sink's turn: its methods read and write the same rows, and are called
// by the loop that hands it events and by the admin API. release ends the turn.
func (s *Sink) begin(ctx context.Context) (release func(), err error) {
	select {
	case s.turn <- struct{}{}:
		return func() { <-s.turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Name implements sink.Sink.
func (s *Sink) Name() string { return Name }

// Skip does nothing: the sink has no position of its own.
func (s *Sink) Skip(uint64) error { return nil }

// An announcement is a finished post with its key, and its sources. That of a summary has
// no image of its own.
type announcement struct {
	version
	Others []version     `json:"others,omitempty"` // further versions that the post stands for, the oldest first
	Waited time.Duration `json:"waited,omitempty"` // how long it waited on purpose, in nanoseconds
	Write  repo.Write    `json:"write"`
	Card   *pictured     `json:"card,omitempty"` // nil: the post is sent as it is

	Document *documented `json:"document,omitempty"` // written with the post; nil: none
	Earlier  []earlier   `json:"earlier,omitempty"`  // forms that may have been sent

	page *publication.Document // what a document of the version says; nil: there is none
}

func (a *announcement) isSummary() bool { return a.Digest == "" && len(a.Others) > 0 }

// announcementBatch is the content of the outbox.
type announcementBatch struct {
	Posts []announcement `json:"posts"`
}

// maxPosts is how many posts a batch may have.
const maxPosts = 100

func (s *Sink) outbox() *delivery.Outbox {
	return delivery.NewOutbox(s.State, state.AnnounceOutbox, s.Revision)
}

// Handle decides about the windows that have ended. The first event of the oldest open
// window is the first that is left.
func (s *Sink) Handle(ctx context.Context, events []event.Sequenced) (int, time.Time, error) {
	release, err := s.begin(ctx)
	if err != nil {
		return 0, time.Time{}, err
	}
	defer release()
	if err := s.finishBegun(ctx); err != nil {
		return 0, time.Time{}, err
	}
	done, wake, err := s.handleEvents(ctx, events)
	if err != nil {
		return done, wake, err
	}
	next, err := s.dueAfter(ctx, s.age(events[len(events)-1]) <= s.MaxAge)
	return done, earliest(wake, next), err
}

// handleEvents decides about the windows that have ended, in one commit, and sends posts.
func (s *Sink) handleEvents(ctx context.Context, events []event.Sequenced) (int, time.Time, error) {
	p, err := decided.Read(s.State)
	if err != nil {
		return 0, time.Time{}, err
	}
	events = throughForget(events, p)
	windows, err := s.windows(events, p)
	if err != nil {
		return 0, time.Time{}, err
	}
	d := s.newDecision()
	closed, done, wake, failed := d.closeWindows(ctx, windows, len(events))
	if failed != nil && len(closed) == 0 {
		return done, wake, failed
	}
	// failed recurs in the next call, after this decision.
	if err := d.followDeletes(ctx, events, done, p); err != nil {
		return 0, time.Time{}, err
	}
	if err := d.forget(events, done, p); err != nil {
		return 0, time.Time{}, err
	}
	if p.Add(events, done, closed) {
		if err := d.set(state.AnnounceDecided, &p); err != nil {
			return 0, time.Time{}, err
		}
	}
	if err := d.commit(ctx); err != nil {
		return 0, time.Time{}, err
	}
	return done, wake, nil
}

// Due implements sink.Timed: it writes the posts of versions that have waited long enough,
// deletes posts, and adds to documents the references to their posts.
func (s *Sink) Due(ctx context.Context) (next time.Time, err error) {
	release, err := s.begin(ctx)
	if err != nil {
		return time.Time{}, err
	}
	defer release()
	if err := s.finishBegun(ctx); err != nil {
		return time.Time{}, err
	}
	return s.dueAfter(ctx, true)
}

// finishBegun sends the posts in the outbox, and deletes those of an owner whose data is being
// deleted.
func (s *Sink) finishBegun(ctx context.Context) error {
	if err := s.confirm(ctx); err != nil {
		return err
	}
	return s.forgetPosts(ctx)
}

// dueAfter is Due after finishBegun. complete means that no older events are pending that
// belong into the next summary.
func (s *Sink) dueAfter(ctx context.Context, complete bool) (next time.Time, err error) {
	defer func() {
		var panicked *sink.PanicError
		if errors.As(err, &panicked) { // it is not about the events that Handle has got
			s.Log.Error("the announcement of waiting versions panicked", "error", err, "stack", string(panicked.Stack))
			err = errors.New(panicked.Error())
		}
	}()
	defer sink.Recover(&err)
	cooled, err := s.endCooldowns(ctx)
	if err != nil {
		return time.Time{}, err
	}
	summary, err := s.summarize(ctx, complete)
	if err != nil {
		return time.Time{}, err
	}
	next, err = s.retract(ctx)
	if err != nil {
		return time.Time{}, err
	}
	if s.site != nil {
		next = earliest(next, s.site.Write(ctx))
	}
	referenced, err := s.writeReferences(ctx)
	if err != nil {
		return time.Time{}, err
	}
	return earliest(earliest(next, referenced), earliest(cooled, summary)), nil
}

// earliest returns the earlier of two times; zero is no time.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
