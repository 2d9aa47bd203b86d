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

// standIn replaces the parts of a registry whose data folder cannot be opened,
// because the disk is full or read-only, so that the registry starts anyway:
//
//   - Pushes and deletes are refused with a 503 before they reach storage. Nothing
//     is stored that no event would report.
//   - Pulls are served, and counted as lost.
//   - Our own routes answer 503 with the problem of the disk; health shows it.
//
// In the background the data folder is opened again and again. Once that succeeds
// standIn passes everything on to the parts that were opened. A request during the
// change is handled wholly by one or the other: each method reads opened once.
type standIn struct {
	problem  string            // of the disk, without file names
	events   *notifier.Metrics // shared with the parts that are opened later
	requests *Metrics
	opened   atomic.Pointer[parts]
}

// newStandIn returns the parts of a registry that could not be opened because of
// err, and calls open in the background until it succeeds.
func (o *opener) newStandIn(err error) parts {
	s := &standIn{problem: diskProblem(err), events: o.events, requests: NewMetrics(o.metrics)}
	o.log.Error("the data folder cannot be opened; pulls are served and not counted, pushes and deletes are refused, and opening is retried",
		"dir", o.options.Data, "error", err)
	return o.parts(s, s.mounts(o), s.openLater(o.log, o.open))
}

// openLater calls open in the background until it succeeds. end stops that, and
// closes what was opened.
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

// mounts are the same paths as those of a runtime with these options.
func (s *standIn) mounts(o *opener) []mount {
	var mounts []mount
	add := func(path string, until http.Handler) {
		mounts = append(mounts, mount{path, &lateRoute{s, path, until}})
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

// account serves the hold's identity, which only needs its key.
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

// lateRoute serves a path by until, and by the parts once they are opened.
type lateRoute struct {
	standIn *standIn
	path    string
	until   http.Handler
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
	l.until.ServeHTTP(w, r)
}
