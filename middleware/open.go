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

	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/internal/clientaddr"
	"github.com/tidings-dev/tidings/middleware/observe"
)

// Name is the name of the entry under middleware.repository.
const Name = config.Name

// parts are the parts of a Handler. wire creates them for a configuration.
type parts struct {
	recorder observe.Recorder                     // nil: the entry is disabled, or a hold is served without a registry
	permit   func(repository, actor string) error // as in observe.Config
	mounts   []mount
	addr     string // of the listener that serves the mounts; empty: the registry's port
	proxies  clientaddr.Proxies
	log      *slog.Logger
	metrics  *Metrics
	close    func(context.Context) error // nil: nothing to close
}

// Handler is an open instance of Tidings, for one configuration of a registry.
type Handler struct {
	parts
	config       *configuration.Configuration
	observer     *observe.Observer // nil: nothing is recorded
	own          *listener         // nil: the mounts are on the registry's port
	writeTimeout time.Duration     // for each write of a response of the mounts
	access       io.Writer         // the access log of the mounts
	closing      func(context.Context) error
}

// handlers has each open Handler by its *configuration.Configuration, which is all
// that the host passes to a repository middleware about its registry.
var (
	handlers sync.Map
	opening  sync.Mutex
)

// Open opens all parts that the entry of the configuration asks for: the journal, the
// sinks, the hold, the routes. It fails if there is no such entry, if an option is
// invalid, or if the configuration is already open; the error says what to do.
//
// A program that serves through the registry package needs only a blank import of
// this package. A program that creates its own handlers.App calls Open with the
// app's configuration, wraps the app with Handler.Wrap, and calls Close at the end.
func Open(host *configuration.Configuration) (*Handler, error) {
	return open(host, wire)
}

func open(host *configuration.Configuration, wire func(*configuration.Configuration) (parts, error)) (*Handler, error) {
	opening.Lock()
	defer opening.Unlock()
	if handlerOf(host) != nil {
		return nil, errors.New("this configuration is already open: close its Handler first")
	}
	entry, err := config.Entry(host)
	if err != nil {
		return nil, err
	}
	if entry == nil {
		return nil, fmt.Errorf("the configuration has no entry %q under middleware.repository", Name)
	}
	if entry.Disabled {
		return start(host, parts{})
	}
	created, err := wire(host)
	if err != nil {
		return nil, err
	}
	return start(host, created)
}

// start returns a Handler with the parts and adds it to handlers. If it fails it closes
// the parts.
func start(host *configuration.Configuration, p parts) (*Handler, error) {
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	h := &Handler{parts: p, config: host, writeTimeout: writeTimeout, access: os.Stdout}
	h.closing = once(h.shut)
	if p.recorder != nil {
		h.observer = observe.New(observe.Config{Recorder: p.recorder, Permit: p.permit, Prefix: host.HTTP.Prefix, Log: p.log, Unrecorded: p.metrics.unrecorded})
	}
	if p.addr != "" && len(p.mounts) > 0 {
		own, err := listen(p.addr, h.Routes(), p.log)
		if err != nil {
			return nil, errors.Join(err, h.closing(context.Background()))
		}
		h.own = own
	}
	handlers.Store(host, h)
	return h, nil
}

func handlerOf(host *configuration.Configuration) *Handler {
	h, _ := handlers.Load(host)
	found, _ := h.(*Handler)
	return found
}

// Close stops recording requests, closes all parts, and returns their errors. It may be
// called twice. Requests should have ended before; a push that has not is answered 503.
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

// Shutdown closes all open Handlers, including those that the blank import opened. A
// main function calls it after the registry has stopped; ctx limits its time. Without
// it the journal is as consistent as after a crash.
func Shutdown(ctx context.Context) error {
	var failed error
	handlers.Range(func(_, h any) bool {
		failed = errors.Join(failed, h.(*Handler).Close(ctx))
		return true
	})
	return failed
}
