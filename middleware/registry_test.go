package middleware

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/configuration"
	app "github.com/distribution/distribution/v3/registry/handlers"
	repositorymiddleware "github.com/distribution/distribution/v3/registry/middleware/repository"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// wiring returns a wire function with the given results.
func wiring(p parts, err error) func(*configuration.Configuration) (parts, error) {
	return func(*configuration.Configuration) (parts, error) { return p, err }
}

type marker struct{ http.Handler }

// The app of a registry without our entry is returned unchanged.
func TestAttachWithoutEntry(t *testing.T) {
	t.Parallel()
	next := &marker{}
	for name, config := range map[string]*configuration.Configuration{
		"nothing":            {},
		"another middleware": {Middleware: map[string][]configuration.Middleware{"repository": {{Name: "other"}}, "storage": {{Name: "other"}}}},
	} {
		got := attach(config, next, func(*configuration.Configuration) (parts, error) {
			t.Errorf("%s: wire was called", name)
			return parts{}, nil
		}, func(args ...any) { t.Errorf("%s: %v", name, args) })
		if got != http.Handler(next) {
			t.Errorf("%s: the registry was wrapped", name)
		}
		if handlerOf(config) != nil {
			t.Errorf("%s: a Handler is open", name)
		}
	}
}

// An error at the start ends the process.
func TestAttachFails(t *testing.T) {
	t.Parallel()
	config := configure(t, observedYAML)
	var message []any
	attach(config, &marker{}, wiring(parts{}, errors.New("options.data: missing")), func(args ...any) { message = args })
	if len(message) != 2 || message[0] != "tidings:" || message[1].(error).Error() != "options.data: missing" {
		t.Errorf("fatal was called with %v", message)
	}
}

// attach opens a Handler for the configuration, or uses the one that is open.
func TestAttach(t *testing.T) {
	t.Parallel()
	fatal := func(args ...any) { t.Error(args...) }
	config := configure(t, observedYAML)
	rec := &fakeRecorder{alias: map[string]string{}}
	opened := 0
	wire := func(*configuration.Configuration) (parts, error) {
		opened++
		return parts{recorder: rec}, nil
	}
	var h *Handler
	r := serve(t, config, func(next http.Handler) http.Handler {
		wrapped := attach(config, next, wire, fatal)
		h = handlerOf(config)
		attach(config, next, wire, fatal)
		return wrapped
	}, rec)
	if opened != 1 {
		t.Errorf("wire was called %d times, want once", opened)
	}
	image := r.image("app", "IMAGE", v1.MediaTypeImageManifest)
	rec.take()
	r.push("app", "v1", image)
	r.expect("push", "intend app:v1 IMAGE", "complete app:v1 IMAGE", "status 201")
	if err := h.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestOpenErrors(t *testing.T) {
	t.Parallel()
	if _, err := Open(&configuration.Configuration{}); err == nil || !strings.Contains(err.Error(), `no entry "tidings"`) {
		t.Errorf("without an entry: %v", err)
	}
	config := configure(t, observedYAML)
	h, err := open(config, wiring(parts{}, nil))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open(config, wiring(parts{}, nil)); err == nil || !strings.Contains(err.Error(), "already open") {
		t.Errorf("twice: %v", err)
	}
	if err := h.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if h, err = open(config, wiring(parts{}, nil)); err != nil {
		t.Errorf("after Close: %v", err)
	}
	if err := h.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestCloseOnce(t *testing.T) {
	t.Parallel()
	closed := 0
	h, err := start(&configuration.Configuration{}, parts{close: func(context.Context) error { closed++; return errFault }})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := h.Close(t.Context()); !errors.Is(err, errFault) {
			t.Errorf("close: %v", err)
		}
	}
	if closed != 1 {
		t.Errorf("closed %d times", closed)
	}
}

// With disabled: true, which the host itself ignores, nothing is opened or wrapped.
func TestDisabled(t *testing.T) {
	t.Parallel()
	config := configure(t, observedYAML, func(c *configuration.Configuration) {
		c.Middleware["repository"][1].Disabled = true
	})
	h, err := open(config, wiring(parts{}, errors.New("wire was called")))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close(context.Background())
	next := &marker{}
	if h.Wrap(next) != http.Handler(next) {
		t.Error("the registry was wrapped")
	}
	r := serve(t, config, h.Wrap, nil)
	if got := r.push("app", "v1", r.image("app", "IMAGE", v1.MediaTypeImageManifest)); got.status != 201 {
		t.Errorf("push: %d %s", got.status, got.body)
	}
}

// If no Handler is open, requests fail with an error that says how to open one.
func TestNotOpen(t *testing.T) {
	t.Parallel()
	config := configure(t, observedYAML)
	a := app.NewApp(t.Context(), config)
	if _, err := repositorymiddleware.Get(a, Name, nil, nil); !errors.Is(err, errNotOpen) || !strings.Contains(err.Error(), "blank-import") || !strings.Contains(err.Error(), "middleware.Open") {
		t.Errorf("not open: %v", err)
	}
	if _, err := repositorymiddleware.Get(t.Context(), Name, nil, nil); err == nil {
		t.Error("outside of an app: no error")
	}
	answer := httptest.NewRecorder()
	a.ServeHTTP(answer, httptest.NewRequest("GET", "/v2/app/manifests/v1", nil))
	if answer.Code != 500 {
		t.Errorf("status %d, want 500", answer.Code)
	}
}

// If the Handler does not wrap the app, pushes are refused and other requests served.
func TestNotWrapped(t *testing.T) {
	t.Parallel()
	config := configure(t, observedYAML)
	rec := &fakeRecorder{alias: map[string]string{}}
	h, err := start(config, parts{recorder: rec})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close(context.Background())
	r := serve(t, config, func(next http.Handler) http.Handler { return next }, rec)
	image := r.image("app", "IMAGE", v1.MediaTypeImageManifest)
	rec.take()
	got := r.push("app", "v1", image)
	if _, message := decodeError(t, got); got.status != 503 || !strings.Contains(message, "Handler.Wrap") {
		t.Errorf("got %d %s", got.status, got.body)
	}
	r.expect("push", "status 503")

	plain := serve(t, configure(t, plainYAML, func(c *configuration.Configuration) {
		c.Storage["filesystem"] = config.Storage["filesystem"]
	}), func(next http.Handler) http.Handler { return next }, nil)
	if got := plain.push("app", "v1", image); got.status != 201 {
		t.Fatalf("push: %d %s", got.status, got.body)
	}
	if got := r.do("GET", "/v2/app/manifests/v1", nil, "Accept", acceptAll); got.status != 200 {
		t.Errorf("pull: %d %s", got.status, got.body)
	}
	r.expect("pull", "status 200")
	r.do("DELETE", "/v2/app/manifests/v1", nil)
	r.expect("delete", "delete app:v1 ", "status 202")
}

// Shutdown closes all Handlers, so this test cannot run in parallel with others.
func TestShutdown(t *testing.T) {
	closed := 0
	p := parts{close: func(context.Context) error { closed++; return nil }}
	for range 2 {
		if _, err := start(&configuration.Configuration{}, p); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if closed != 2 {
		t.Errorf("closed %d Handlers, want 2", closed)
	}
}
