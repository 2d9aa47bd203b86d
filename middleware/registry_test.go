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

func wiring(p parts, err error) func(*configuration.Configuration) (parts, error) {
	return func(*configuration.Configuration) (parts, error) { return p, err }
}

type marker struct{ http.Handler }

// A registry without our entry is the very handler it was.
func TestLeftAlone(t *testing.T) {
	t.Parallel()
	next := &marker{}
	for name, config := range map[string]*configuration.Configuration{
		"nothing":            {},
		"another middleware": {Middleware: map[string][]configuration.Middleware{"repository": {{Name: "other"}}, "storage": {{Name: "other"}}}},
	} {
		got := attach(config, next, func(*configuration.Configuration) (parts, error) {
			t.Errorf("%s: something was opened", name)
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

// An error at start ends the process with the error's text.
func TestOpenErrorIsFatal(t *testing.T) {
	t.Parallel()
	config := configure(t, observedYAML)
	var said []any
	attach(config, &marker{}, wiring(parts{}, errors.New("options.data: missing")), func(args ...any) { said = args })
	if len(said) != 2 || said[0] != "tidings:" || said[1].(error).Error() != "options.data: missing" {
		t.Errorf("said %v", said)
	}
}

// The blank import opens, wraps and is found; opened by hand it is used as it is.
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
		t.Errorf("opened %d times, want once", opened)
	}
	image := r.image("app", "IMAGE", v1.MediaTypeImageManifest)
	rec.take()
	r.push("app", "v1", image)
	r.expect("push", "intend app:v1 IMAGE", "complete app:v1 IMAGE", "status 201")
	if err := h.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	if _, err := Open(&configuration.Configuration{}); err == nil || !strings.Contains(err.Error(), `no entry "tidings"`) {
		t.Errorf("without an entry: %v", err)
	}
	config := configure(t, observedYAML)
	h, err := open(config, wiring(parts{}, nil))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open(config, wiring(parts{}, nil)); err == nil || !strings.Contains(err.Error(), "open already") {
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

// disabled: true, which the host parses and forgets, switches us off.
func TestDisabled(t *testing.T) {
	t.Parallel()
	config := configure(t, observedYAML, func(c *configuration.Configuration) {
		c.Middleware["repository"][1].Disabled = true
	})
	h, err := open(config, wiring(parts{}, errors.New("wired in spite of disabled")))
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

// A registry set up wrongly says so in its log, and no push slips by unheard.
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

// Open, but not wrapped: pushes are refused, the rest is served.
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
	if _, message := envelope(t, got); got.status != 503 || !strings.Contains(message, "Handler.Wrap") {
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

// Shutdown closes what the blank import opened. It is not parallel: it closes
// every Handler there is.
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
		t.Errorf("closed %d, want 2", closed)
	}
}
