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

// standIn is the Recorder of a registry that starts although its data folder
// can't be opened, because the disk is full or read-only. Pushes and deletes are
// refused before storage is touched, pulls are served and counted as lost, and
// our own routes say what is wrong. Once the data folder can be opened standIn
// hands everything on to the parts that were opened.
type standIn struct {
	problem  string            // what is wrong with the disk, for everybody
	events   *notifier.Metrics // shared with the parts that are opened later
	requests *Metrics
	opened   atomic.Pointer[parts]
}

// newStandIn returns the parts of a registry that could not be opened because of
// err, and calls open in the background until it succeeds.
func (o *opener) newStandIn(err error) parts {
	s := &standIn{problem: diskProblem(err), events: o.events, requests: NewMetrics(o.metrics)}
	o.log.Error("the data folder can't be opened; the registry serves pulls without counting them, refuses pushes and deletes, and tries again",
		"dir", o.options.Data, "err", err)
	return o.parts(s, s.mounts(o), s.openLater(o.log, o.open))
}

// openLater calls open in the background until it succeeds. end ends that, and
// what was opened.
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
			return fmt.Errorf("the data folder is being opened: %w", ctx.Err())
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
		s.problem + " on which this registry records what happens; try again when that is mended")
}

// mounts are those that a runtime has for the same options.
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

// account shows the hold's identity, which is read from its key, and nothing
// else of it.
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
	fail(w, http.StatusServiceUnavailable, "ServiceUnavailable", s.problem+"; this is answered again when that is mended")
}

func (s *standIn) health(context.Context, bool) any {
	return health{
		Status:  statusDegraded,
		Reasons: []string{s.problem + ": pulls are served and not counted, pushes and deletes are refused"},
		Sinks:   []notifier.SinkHealth{},
	}
}

// lateRoute serves a path as the parts do that are opened later, and until then
// as it is given.
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
