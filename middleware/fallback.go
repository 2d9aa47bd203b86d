package middleware

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"

	"github.com/distribution/distribution/v3/registry/api/errcode"

	"github.com/tidings-dev/tidings/atproto/hold"
	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/middleware/observe"
	"github.com/tidings-dev/tidings/notifier"
	"github.com/tidings-dev/tidings/notifier/pages"
	"github.com/tidings-dev/tidings/notifier/publication"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/stats"
)

// fallback replaces the parts of a registry whose data folder cannot be opened
// because its disk is full or read-only, so that the registry can start:
//
//   - Pushes and deletes are refused with a 503 before they reach storage, so that
//     nothing is stored without an event.
//   - Pulls are served, and counted as lost in the metrics.
//   - Our own routes answer 503 with the disk's problem, except for the health
//     report, which shows it, and the hold's identity.
//
// Opening the data folder is retried in the background. Once it succeeds, fallback
// forwards all calls to the parts that were opened. Each method loads opened once, so
// a call during the switch is handled by exactly one of the two. An intent belongs to
// the parts that returned it.
//
// A crash loses nothing but the metrics: fallback writes no files, and the next start
// opens the data folder or creates a fallback again.
type fallback struct {
	problem  string        // of the disk; for the public, so without file names
	events   *sink.Metrics // shared with the parts that are opened later
	requests *Metrics
	opened   atomic.Pointer[parts]
}

// newFallback returns the parts of a fallback, for a registry whose parts could not be
// opened because of err.
func (o *opener) newFallback(err error) parts {
	f := &fallback{problem: diskProblem(err), events: o.events, requests: o.requests}
	o.log.Error("the data folder cannot be opened; pulls are served and not counted, pushes and deletes are refused, and opening is retried",
		"dir", o.options.Data, "error", err)
	endAdmin := f.serveAdmin(o)
	endOpening := f.openLater(o.log, func(ctx context.Context) (parts, error) {
		opened, err := o.open(ctx)
		if err == nil { // the parts have an admin API of their own
			if err := endAdmin(ctx); err != nil {
				o.log.Warn("the admin socket of the fallback was not closed", "error", err)
			}
		}
		return opened, err
	})
	return o.parts(f, f.permit(o), f.mounts(o), func(ctx context.Context) error {
		return errors.Join(endOpening(ctx), endAdmin(ctx))
	})
}

// openLater calls open in the background until it succeeds. end stops this, waits for
// a running attempt, and closes the parts if they were opened.
func (f *fallback) openLater(log *slog.Logger, open func(context.Context) (parts, error)) (end func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		openLater(ctx, log, "the data folder", func(ctx context.Context) error {
			opened, err := open(ctx)
			if err == nil {
				f.opened.Store(&opened)
			}
			return err
		})
	}()
	return func(ctx context.Context) error {
		cancel()
		select {
		case <-ended:
		case <-ctx.Done():
			return fmt.Errorf("wait until the data folder is opened: %w", ctx.Err())
		}
		if opened := f.opened.Load(); opened != nil {
			return opened.close(ctx)
		}
		return nil
	}
}

func (f *fallback) Intend(ctx context.Context, p notifier.Push) (observe.Intent, error) {
	if opened := f.opened.Load(); opened != nil {
		return opened.recorder.Intend(ctx, p)
	}
	f.requests.unrecorded("push")
	return nil, f.refusal("push")
}

func (f *fallback) IntendDelete(ctx context.Context, d notifier.Delete) (observe.Intent, error) {
	if opened := f.opened.Load(); opened != nil {
		return opened.recorder.IntendDelete(ctx, d)
	}
	return nil, f.refusal("delete")
}

func (f *fallback) Pull(p notifier.Pull) {
	if opened := f.opened.Load(); opened != nil {
		opened.recorder.Pull(p)
		return
	}
	f.events.Event("pull", "lost")
}

// permit returns the function that decides who may push, once the parts are opened. Until
// then all pushes are refused.
func (f *fallback) permit(o *opener) func(repository, actor string) error {
	if !o.options.Actors.Strict {
		return nil
	}
	return func(repository, actor string) error {
		if opened := f.opened.Load(); opened != nil {
			return opened.permit(repository, actor)
		}
		return f.refusal("push")
	}
}

func (f *fallback) refusal(operation string) error {
	f.events.Event(operation, "refused")
	return errcode.ErrorCodeUnavailable.WithMessage("the " + operation + " was refused and nothing was changed: " +
		f.problem + " on which this registry records events; try again later")
}

// mounts returns the mounts of a fallback. Their paths are those of a runtime with the
// same options.
func (f *fallback) mounts(o *opener) []mount {
	var mounts []mount
	add := func(path string, before http.Handler) {
		mounts = append(mounts, mount{path, &fallbackRoute{f, path, before}})
	}
	if o.options.Hold != nil {
		account := f.account(o)
		for _, path := range holdPaths {
			add(path, account)
		}
	}
	if remote := o.options.Remote; remote != nil && remote.Hostname != "" {
		add(didPath, f.remoteDocument(o))
	}
	for _, m := range probes(func() bool { return false }) {
		add(m.path, m.handler)
	}
	health := stats.New(stats.Config{Health: f.health, TokenFile: o.options.API.TokenFile, Logger: o.log})
	add(stats.Prefix, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == stats.Prefix+"health" {
			health.ServeHTTP(w, r)
			return
		}
		f.unavailable(w, r)
	}))
	if len(o.options.Public) > 0 {
		add(pages.Prefix, http.HandlerFunc(f.unavailable))
		if a := o.options.Announce; a != nil && a.Publication != nil {
			for _, path := range publication.Paths(pages.Root) {
				add(path, http.HandlerFunc(f.unavailable))
			}
		}
	}
	return mounts
}

// account returns a handler that serves the hold's identity, which needs only its key.
func (f *fallback) account(o *opener) http.Handler {
	key, err := identity.LoadKey(o.options.KeyFile())
	if err != nil {
		return http.HandlerFunc(f.unavailable)
	}
	id, err := identity.New(o.options.Hold.Hostname, key)
	if err != nil {
		return http.HandlerFunc(f.unavailable)
	}
	id.MovedTo = movedTo(o.options.Hold)
	account, err := hold.NewBroken(&hold.BrokenError{Identity: id, Err: errors.New(f.problem)}, o.log)
	if err != nil {
		return http.HandlerFunc(f.unavailable)
	}
	return account
}

func (f *fallback) unavailable(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Retry-After", "60")
	fail(w, http.StatusServiceUnavailable, "ServiceUnavailable", f.problem+"; try again later")
}

func (f *fallback) health(context.Context, bool) any { return f.report() }

func (f *fallback) report() Health {
	return Health{
		Status:  statusDegraded,
		Reasons: []string{f.problem + ": pulls are served and not counted, pushes and deletes are refused"},
		Sinks:   []notifier.SinkHealth{},
	}
}

// fallbackRoute serves a path with before until the parts are opened, and then with
// their handler.
type fallbackRoute struct {
	fallback *fallback
	path     string
	before   http.Handler
}

func (f *fallbackRoute) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if opened := f.fallback.opened.Load(); opened != nil {
		for _, m := range opened.mounts {
			if m.path == f.path {
				m.handler.ServeHTTP(w, r)
				return
			}
		}
	}
	f.before.ServeHTTP(w, r)
}
