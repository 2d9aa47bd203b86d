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
	"github.com/tidings-dev/tidings/notifier/stats"
)

// standIn replaces the parts of a registry whose data folder cannot be opened
// because its disk is full or read-only, so that the registry can start:
//
//   - Pushes and deletes are refused with a 503 before they reach storage, so that
//     nothing is stored without an event.
//   - Pulls are served, and counted as lost in the metrics.
//   - Our own routes answer 503 with the disk's problem, except for the health
//     report, which shows it, and the hold's identity.
//
// Opening the data folder is retried in the background. Once it succeeds, standIn
// forwards all calls to the parts that were opened. Each method loads opened once, so
// a call during the switch is handled by exactly one of the two. An intent belongs to
// the parts that returned it.
//
// A crash loses nothing but the metrics: standIn writes no files, and the next start
// opens the data folder or creates a standIn again.
type standIn struct {
	problem  string            // of the disk; for the public, so without file names
	events   *notifier.Metrics // shared with the parts that are opened later
	requests *Metrics
	opened   atomic.Pointer[parts]
}

// newStandIn returns the parts of a standIn, for a registry whose parts could not be
// opened because of err.
func (o *opener) newStandIn(err error) parts {
	s := &standIn{problem: diskProblem(err), events: o.events, requests: NewMetrics(o.metrics)}
	o.log.Error("the data folder cannot be opened; pulls are served and not counted, pushes and deletes are refused, and opening is retried",
		"dir", o.options.Data, "error", err)
	return o.parts(s, s.mounts(o), s.openLater(o.log, o.open))
}

// openLater calls open in the background until it succeeds. end stops this, waits for
// a running attempt, and closes the parts if they were opened.
func (s *standIn) openLater(log *slog.Logger, open func(context.Context) (parts, error)) (end func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		openLater(ctx, log, "the data folder", func(ctx context.Context) error {
			opened, err := open(ctx)
			if err == nil {
				s.opened.Store(&opened)
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
		if opened := s.opened.Load(); opened != nil {
			return opened.close(ctx)
		}
		return nil
	}
}

func (s *standIn) Intend(ctx context.Context, p notifier.Push) (observe.Intent, error) {
	if opened := s.opened.Load(); opened != nil {
		return opened.recorder.Intend(ctx, p)
	}
	s.requests.unrecorded("push")
	return nil, s.refusal("push")
}

func (s *standIn) IntendDelete(ctx context.Context, d notifier.Delete) (observe.Intent, error) {
	if opened := s.opened.Load(); opened != nil {
		return opened.recorder.IntendDelete(ctx, d)
	}
	return nil, s.refusal("delete")
}

func (s *standIn) Pull(p notifier.Pull) {
	if opened := s.opened.Load(); opened != nil {
		opened.recorder.Pull(p)
		return
	}
	s.events.Event("pull", "lost")
}

func (s *standIn) refusal(operation string) error {
	s.events.Event(operation, "refused")
	return errcode.ErrorCodeUnavailable.WithMessage("the " + operation + " was refused and nothing was changed: " +
		s.problem + " on which this registry records events; try again later")
}

// mounts returns the mounts of a standIn. Their paths are those of a runtime with the
// same options.
func (s *standIn) mounts(o *opener) []mount {
	var mounts []mount
	add := func(path string, before http.Handler) {
		mounts = append(mounts, mount{path, &lateRoute{s, path, before}})
	}
	if o.options.Hold != nil {
		account := s.account(o)
		for _, path := range holdPaths {
			add(path, account)
		}
	}
	health := stats.New(stats.Config{Health: s.health, TokenFile: o.options.API.TokenFile, Logger: o.log})
	add(stats.Prefix, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == stats.Prefix+"health" {
			health.ServeHTTP(w, r)
			return
		}
		s.unavailable(w, r)
	}))
	return mounts
}

// account returns a handler that serves the hold's identity, which needs only its key.
func (s *standIn) account(o *opener) http.Handler {
	key, err := identity.LoadKey(o.options.KeyFile())
	if err != nil {
		return http.HandlerFunc(s.unavailable)
	}
	id, err := identity.New(o.options.Hold.Hostname, key)
	if err != nil {
		return http.HandlerFunc(s.unavailable)
	}
	id.MovedTo = movedTo(o.options.Hold)
	account, err := hold.NewBroken(&hold.BrokenError{Identity: id, Err: errors.New(s.problem)}, o.log)
	if err != nil {
		return http.HandlerFunc(s.unavailable)
	}
	return account
}

func (s *standIn) unavailable(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Retry-After", "60")
	fail(w, http.StatusServiceUnavailable, "ServiceUnavailable", s.problem+"; try again later")
}

func (s *standIn) health(context.Context, bool) any {
	return health{
		Status:  statusDegraded,
		Reasons: []string{s.problem + ": pulls are served and not counted, pushes and deletes are refused"},
		Sinks:   []notifier.SinkHealth{},
	}
}

// lateRoute serves a path with before until the parts are opened, and then with their
// handler.
type lateRoute struct {
	standIn *standIn
	path    string
	before  http.Handler
}

func (l *lateRoute) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if opened := l.standIn.opened.Load(); opened != nil {
		for _, m := range opened.mounts {
			if m.path == l.path {
				m.handler.ServeHTTP(w, r)
				return
			}
		}
	}
	l.before.ServeHTTP(w, r)
}
