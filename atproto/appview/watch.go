package appview

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/atproto/guard"
)

const (
	first     = 10 * time.Second // from a post to the first request about it
	pause     = 30 * time.Second // between two requests, at least
	every     = 5 * time.Minute  // between two requests about recent posts, at most
	lateAfter = 10 * time.Minute // in which a post should be indexed
	recent    = time.Hour        // in which requests are made about a post
	rarely    = time.Hour        // between two requests about a last post that is not recent

	maxPosts    = 50 // that are pending
	unreachable = 3  // failures in a row after which the AppView counts as unreachable
)

// State is the state of the account's posts at the AppView.
type State string

const (
	StateCurrent     State = "current"     // it has all posts, or all but those of the last minutes
	StateLagging     State = "lagging"     // it lacks posts that are older than a few minutes
	StateUnreachable State = "unreachable" // it does not answer
)

// Status is what is known of the account's posts at the AppView.
type Status struct {
	AppView string        // host
	State   State         // "" before the first answer
	Reason  string        // why it is not current
	Missing int           // posts that it lacked in its last answer, 10 minutes or longer after they were written
	Delay   time.Duration // from writing the last indexed post to the answer that had it; 0: not known
}

// Config configures a Watcher. AppView and Newest are required.
type Config struct {
	AppView string // address, valid for Check, not Off

	// Newest returns up to limit posts in the account's repo, in descending order of
	// their keys.
	Newest func(ctx context.Context, limit int) ([]Post, error)

	Now     func() time.Time // nil: time.Now
	Metrics *Metrics         // nil: silent
	Logger  *slog.Logger     // nil: silent
}

// Watcher asks an AppView about the account's posts, while Run runs. A nil *Watcher does
// nothing.
type Watcher struct {
	cfg    Config
	url    *url.URL
	client *http.Client
	added  chan struct{} // has an element after Posted

	mu       sync.Mutex
	posts    pending
	status   Status
	failures int       // in a row
	asked    time.Time // when the last request was sent
	next     time.Time // of the next request, if posts are pending
}

// New returns a Watcher.
func New(cfg Config) (*Watcher, error) {
	if cfg.Newest == nil {
		return nil, errors.New("appview: newest is required")
	}
	u, err := parse(cfg.AppView)
	if err != nil {
		return nil, fmt.Errorf("appview: %w", err)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Logger = cfg.Logger.With("component", "appview", "appview", u.Host)
	return &Watcher{cfg: cfg, url: u, client: guard.Client(u), added: make(chan struct{}, 1), status: Status{AppView: u.Host}}, nil
}

// Status returns what is known of the posts; false if no AppView is asked.
func (w *Watcher) Status() (Status, bool) {
	if w == nil {
		return Status{}, false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status, true
}

// Posted reports a post that has been written to the account's repo.
func (w *Watcher) Posted(uri string, at time.Time) {
	if w != nil {
		w.add(pendingPost{uri: uri, written: at, exact: true})
	}
}

func (w *Watcher) add(posts ...pendingPost) {
	w.mu.Lock()
	defer w.mu.Unlock()
	idle := len(w.posts.posts) == 0
	for _, one := range posts {
		w.posts.add(one)
	}
	if soon := w.cfg.Now().Add(first); idle || w.failures == 0 && soon.Before(w.next) {
		w.next = soon
	}
	if earliest := w.asked.Add(pause); w.next.Before(earliest) {
		w.next = earliest
	}
	select {
	case w.added <- struct{}{}:
	default:
	}
}

// Run asks about posts until the context ends. It begins with the recent posts in the
// repo.
func (w *Watcher) Run(ctx context.Context) error {
	if w == nil {
		return nil
	}
	var group sync.WaitGroup
	group.Go(func() { w.load(ctx) })
	for w.wait(ctx) {
		w.ask(ctx)
	}
	group.Wait()
	return nil
}

// load adds the recent posts in the repo, once it can be read.
func (w *Watcher) load(ctx context.Context) {
	newest, err := w.cfg.Newest(ctx, maxPosts)
	for failures := 0; err != nil; failures++ {
		if failures == 0 && ctx.Err() == nil {
			w.cfg.Logger.Warn("the account's posts cannot be read; trying again", "error", err)
		}
		select {
		case <-time.After(guard.RetryIn(failures, err)):
		case <-ctx.Done():
			return
		}
		newest, err = w.cfg.Newest(ctx, maxPosts)
	}
	now, found := w.cfg.Now(), []pendingPost(nil)
	for _, one := range slices.Backward(newest) {
		if now.Sub(one.CreatedAt) < recent {
			found = append(found, pendingPost{uri: one.URI, written: now})
		}
	}
	if len(found) > 0 {
		w.add(found...)
	}
}

// wait waits for the time of the next request. It reports false if the context has
// ended.
func (w *Watcher) wait(ctx context.Context) bool {
	for {
		var due <-chan time.Time
		w.mu.Lock()
		if len(w.posts.posts) > 0 {
			due = time.After(w.next.Sub(w.cfg.Now()))
		}
		w.mu.Unlock()
		select {
		case <-due:
			return ctx.Err() == nil
		case <-w.added:
		case <-ctx.Done():
			return false
		}
	}
}

// ask asks about all pending posts.
func (w *Watcher) ask(ctx context.Context) {
	w.mu.Lock()
	w.asked = w.cfg.Now()
	uris := w.posts.uris()
	w.mu.Unlock()
	for batch := range slices.Chunk(uris, maxURIs) {
		indexed, err := w.getPosts(ctx, batch)
		if ctx.Err() != nil {
			return
		}
		w.cfg.Metrics.asked(err)
		if err != nil {
			w.failed(err)
			return
		}
		w.indexed(indexed)
	}
	w.forgetDeleted(ctx)
	w.answered()
}

// indexed removes posts that the AppView has.
func (w *Watcher) indexed(uris []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.cfg.Now()
	for _, uri := range uris {
		if one, ok := w.posts.remove(uri); ok && one.exact {
			w.status.Delay = max(0, now.Sub(one.written))
			w.cfg.Metrics.indexed(w.status.Delay)
		}
	}
}

// forgetDeleted removes late posts that are not in the repo any more.
func (w *Watcher) forgetDeleted(ctx context.Context) {
	w.mu.Lock()
	late := w.posts.late(w.cfg.Now())
	w.mu.Unlock()
	if len(late) == 0 {
		return
	}
	newest, err := w.cfg.Newest(ctx, maxPosts)
	if err != nil {
		return // they count as missing, and the next request tries again
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.posts.forgetDeleted(late, newest)
}

// answered updates the status after the AppView has answered about all pending posts.
func (w *Watcher) answered() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.cfg.Now()
	w.failures = 0
	w.posts.forget(now)
	late := w.posts.late(now)
	if len(w.posts.posts) > 0 {
		w.next = now.Add(w.posts.interval(now))
	}
	w.status.Missing = len(late)
	if len(late) == 0 {
		w.change(StateCurrent, "")
		return
	}
	w.change(StateLagging, fmt.Sprintf("it lacks %d posts; the oldest, %s, was written at %s", len(late), late[0].uri, late[0].written.UTC().Format(time.RFC3339)))
}

// failed updates the status after a request that failed.
func (w *Watcher) failed(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next = w.cfg.Now().Add(max(pause, guard.RetryIn(w.failures, err)))
	if w.failures++; w.failures >= unreachable {
		w.change(StateUnreachable, err.Error())
	}
}

// change sets the state. The caller must hold mu.
func (w *Watcher) change(state State, reason string) {
	before := w.status.State
	w.status.State, w.status.Reason = state, reason
	w.cfg.Metrics.changed(w.status)
	switch {
	case state == before:
	case state == StateLagging:
		w.cfg.Logger.Warn("AppView has not indexed posts of the account", "missing", w.status.Missing, "reason", reason)
	case state == StateUnreachable:
		w.cfg.Logger.Warn("AppView does not answer whether it has indexed posts", "error", reason)
	case before != "":
		w.cfg.Logger.Info("AppView has indexed the posts of the account again")
	}
}
