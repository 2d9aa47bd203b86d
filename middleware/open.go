package middleware

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/distribution/distribution/v3/configuration"

	"github.com/tidings-dev/tidings/internal/clientaddr"
	"github.com/tidings-dev/tidings/middleware/observe"
)

// Name is what the entry under middleware.repository is called.
const Name = "tidings"

// parts is what a Handler runs on. wire makes them for a configuration.
type parts struct {
	recorder observe.Recorder // nil: the entry is disabled, or a hold alone is served
	mounts   []mount
	addr     string // where the mounts are served; empty: on the registry's port
	proxies  clientaddr.Proxies
	log      *slog.Logger
	metrics  *Metrics
	close    func(context.Context) error // nil: nothing to close
}

// Handler is everything that runs for one registry configuration.
type Handler struct {
	parts
	config   *configuration.Configuration
	observer *observe.Observer // nil: nothing is recorded
	own      *listener         // nil: the mounts are on the registry's port
	pause    time.Duration     // for each piece of an answer of the mounts
	access   io.Writer         // the access log of the mounts
	closing  func(context.Context) error
}

// handlers holds each open Handler under its *configuration.Configuration,
// for that is all that the host tells a repository middleware about the
// registry it is in.
var (
	handlers sync.Map
	opening  sync.Mutex
)

// Open opens everything that the configuration's entry asks for: the journal,
// the sinks, the hold, the routes. It fails if there is no such entry, if an
// option is wrong, or if the configuration is open already; the error's text
// says what to do. A program that serves through the registry package needs
// only the blank import; one that makes its handlers.App itself calls Open
// with the same configuration and wraps the app.
func Open(config *configuration.Configuration) (*Handler, error) {
	return open(config, wire)
}

func open(config *configuration.Configuration, wire func(*configuration.Configuration) (parts, error)) (*Handler, error) {
	opening.Lock()
	defer opening.Unlock()
	if handlerOf(config) != nil {
		return nil, errors.New("this configuration is open already: close the Handler first")
	}
	entry := entryOf(config)
	if entry == nil {
		return nil, fmt.Errorf("the configuration has no entry %q under middleware.repository", Name)
	}
	if entry.Disabled {
		return start(config, parts{})
	}
	made, err := wire(config)
	if err != nil {
		return nil, err
	}
	return start(config, made)
}

// start makes the Handler known for its configuration. It owns the parts from
// the first line on, and closes them when it fails.
func start(config *configuration.Configuration, p parts) (*Handler, error) {
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	h := &Handler{parts: p, config: config, pause: writePause, access: os.Stdout}
	h.closing = once(h.shut)
	if p.recorder != nil {
		h.observer = observe.New(observe.Config{Recorder: p.recorder, Prefix: config.HTTP.Prefix, Log: p.log, Unrecorded: p.metrics.unrecorded})
	}
	if p.addr != "" && len(p.mounts) > 0 {
		own, err := listen(p.addr, h.Routes(), p.log)
		if err != nil {
			return nil, errors.Join(err, h.closing(context.Background()))
		}
		h.own = own
	}
	handlers.Store(config, h)
	return h, nil
}

func handlerOf(config *configuration.Configuration) *Handler {
	h, _ := handlers.Load(config)
	found, _ := h.(*Handler)
	return found
}

func entryOf(config *configuration.Configuration) *configuration.Middleware {
	entries := config.Middleware["repository"]
	for i := range entries {
		if entries[i].Name == Name {
			return &entries[i]
		}
	}
	return nil
}

// Close stops intake, then the parts, and returns their error. It may be
// called twice. Requests must have ended before; a push that has not is
// answered 503.
func (h *Handler) Close(ctx context.Context) error { return h.closing(ctx) }

func (h *Handler) shut(ctx context.Context) error {
	handlers.CompareAndDelete(h.config, h)
	var own, parts error
	if h.own != nil {
		own = h.own.close(ctx)
	}
	if h.close != nil {
		parts = h.close(ctx)
	}
	return errors.Join(own, parts)
}

func once(f func(context.Context) error) func(context.Context) error {
	var do sync.Once
	var err error
	return func(ctx context.Context) error {
		do.Do(func() { err = f(ctx) })
		return err
	}
}

// Shutdown closes every Handler that is open, the ones that the blank import
// opened above all. A main function calls it when the registry has returned,
// with the time it can spare; the journal is right without it.
func Shutdown(ctx context.Context) error {
	var failed error
	handlers.Range(func(_, h any) bool {
		failed = errors.Join(failed, h.(*Handler).Close(ctx))
		return true
	})
	return failed
}
