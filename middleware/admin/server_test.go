package admin

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/notifier"
	"github.com/tidings-dev/tidings/notifier/deadletters"
	"github.com/tidings-dev/tidings/notifier/inspect"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/operate"
	"github.com/tidings-dev/tidings/notifier/runner"
)

// fakeLetters has one letter.
type fakeLetters struct{ dropped bool }

func (f *fakeLetters) List(string, string, int) ([]deadletters.Letter, string, error) {
	return []deadletters.Letter{{Sink: "records", Stream: "pushes", First: 7, Last: 7, Reason: "refused"}}, "more", nil
}

func (f *fakeLetters) Get(box deadletters.Box, seq uint64) (*deadletters.Letter, error) {
	if box != (deadletters.Box{Sink: "records", Stream: journal.Pushes}) || seq != 7 {
		return nil, deadletters.ErrNotFound
	}
	return &deadletters.Letter{Sink: "records", Stream: "pushes", First: 7, Last: 7, Event: []byte(`{"v":5}`)}, nil
}

func (f *fakeLetters) Drop(deadletters.Box, uint64) error { f.dropped = true; return nil }

// fakeSinks has the sink records.
type fakeSinks struct{}

func (*fakeSinks) PauseSink(_ context.Context, name string) error { return known(name) }

func (*fakeSinks) ResumeSink(string) error { return runner.ErrNotPaused }

func (*fakeSinks) SkipEvents(_ context.Context, box deadletters.Box, to uint64) (operate.Skipped, error) {
	return operate.Skipped{First: 1, Last: to, Events: int(box.Stream)}, known(box.Sink)
}

func (*fakeSinks) RewindSink(_ context.Context, name string, to uint64, since time.Time) (operate.Rewound, error) {
	return operate.Rewound{Position: to, Events: uint64(since.Year())}, known(name)
}

func (*fakeSinks) CheckSkip(box deadletters.Box, to uint64) error {
	if to == 9 {
		return operate.ErrPosition
	}
	return known(box.Sink)
}

func (*fakeSinks) CheckRewind(name string, to uint64, _ time.Time) error {
	if to == 9 {
		return operate.ErrNotRewindable
	}
	return known(name)
}

func known(name string) error {
	if name != "records" {
		return notifier.ErrUnknownSink
	}
	return nil
}

func listen(t *testing.T, dir string, letters Letters) *Server {
	t.Helper()
	s, err := Listen(dir, New(Config{
		Status: func(context.Context) Status {
			return Status{Status: OK, PID: 1, Sinks: []Sink{{SinkHealth: notifier.SinkHealth{Stream: "pushes", Sink: "records"}}, {SinkHealth: notifier.SinkHealth{Sink: "other"}}}}
		},
		Letters: letters,
		Sinks:   &fakeSinks{},
		Inspect: func(events int) (*inspect.Report, error) { return &inspect.Report{ID: strconv.Itoa(events)}, nil },
		Log:     slog.New(slog.DiscardHandler),
	}), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(context.Background()) })
	return s
}

// The API is served in folders with short and long paths, only to this user, and the socket
// of a killed process is replaced.
func TestSocket(t *testing.T) {
	t.Parallel()
	long := filepath.Join(t.TempDir(), strings.Repeat("a", 100), strings.Repeat("b", 100))
	if err := os.MkdirAll(long, 0o700); err != nil {
		t.Fatal(err)
	}
	short, err := os.MkdirTemp("", "tidings")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(short) })
	for _, dir := range []string{short, long} {
		client := NewClient(dir)
		if err := client.Call(t.Context(), "GET", "/v1/status", nil, nil); !errors.Is(err, ErrNotRunning) {
			t.Errorf("without a socket: %v", err)
		}
		addr, release, err := address(dir)
		if err != nil {
			t.Fatal(err)
		}
		stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: addr, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		stale.SetUnlinkOnClose(false)
		stale.Close()
		release()
		if err := client.Call(t.Context(), "GET", "/v1/status", nil, nil); !errors.Is(err, ErrNotRunning) {
			t.Errorf("with the socket of a killed process: %v", err)
		}
		first := listen(t, dir, nil)
		info, err := os.Stat(filepath.Join(dir, SocketName))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the socket: %v, %v; want mode 0600", info.Mode(), err)
		}
		second := listen(t, dir, nil)
		if err := first.Close(t.Context()); err != nil {
			t.Error(err)
		}
		var status Status
		if err := client.Call(t.Context(), "GET", "/v1/status", nil, &status); err != nil || status.Status != OK {
			t.Errorf("%+v, %v; closing the first server must leave the socket of the second", status, err)
		}
		if err := second.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(filepath.Join(dir, SocketName)); !os.IsNotExist(err) {
			t.Errorf("after Close: %v, want no socket", err)
		}
	}
}

// A file that is no socket is not replaced.
func TestSocketIsFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, SocketName)
	if err := os.WriteFile(file, []byte("notes"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(dir, nil, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("got %v", err)
	}
	if content, err := os.ReadFile(file); err != nil || string(content) != "notes" {
		t.Errorf("the file: %q, %v", content, err)
	}
}

// Requests about letters, and their errors.
func TestRequests(t *testing.T) {
	t.Parallel()
	letters := &fakeLetters{}
	dir, err := os.MkdirTemp("", "tidings")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	listen(t, dir, letters)
	client := NewClient(dir)
	var page Page
	if err := client.Call(t.Context(), "GET", "/v1/dead", nil, &page); err != nil || len(page.Letters) != 1 || page.Letters[0].Seq != 7 || page.Letters[0].Events != 1 || page.Cursor != "more" {
		t.Errorf("list: %+v, %v", page, err)
	}
	var letter Letter
	if err := client.Call(t.Context(), "GET", "/v1/dead/records/7", nil, &letter); err != nil || string(letter.Event) != `{"v":5}` {
		t.Errorf("show: %+v, %v", letter, err)
	}
	if err := client.Call(t.Context(), "DELETE", "/v1/dead/records/7", nil, nil); err != nil || !letters.dropped {
		t.Errorf("drop: %v", err)
	}
	for _, path := range []string{"/v1/sinks/records/skip", "/v1/sinks/records/rewind"} {
		if err := client.Call(t.Context(), "GET", path, parseQuery(t, "to=1"), nil); err != nil {
			t.Errorf("check %s: %v", path, err)
		}
	}
	for request, want := range map[string]string{
		"POST /v1/sinks/records/pause":                                    `{"sinks":[{"stream":"pushes","sink":"records"`,
		"POST /v1/sinks/records/skip?to=7&stream=pulls":                   `{"first":1,"last":7,"events":1}`,
		"POST /v1/sinks/records/rewind?to=0":                              `{"position":0,"events":1}`,
		"POST /v1/sinks/records/rewind?since=2026-01-31T12:00:00%2B01:00": `{"position":0,"events":2026}`,
		"GET /v1/journal?events=9":                                        `{"id":"9"`,
	} {
		method, path, _ := strings.Cut(request, " ")
		path, query, _ := strings.Cut(path, "?")
		var got json.RawMessage
		if err := client.Call(t.Context(), method, path, parseQuery(t, query), &got); err != nil || !strings.HasPrefix(string(got), want) {
			t.Errorf("%s: %s, %v, want %s", request, got, err, want)
		}
	}
	for request, want := range map[string]int{
		"POST /v1/sinks/other/pause":                                    404,
		"POST /v1/sinks/records/resume":                                 409,
		"POST /v1/sinks/records/skip?to=x":                              400,
		"POST /v1/sinks/records/skip?stream=x":                          400,
		"GET /v1/sinks/records/skip?to=9":                               400,
		"GET /v1/sinks/other/skip":                                      404,
		"GET /v1/sinks/records/rewind?to=9":                             409,
		"GET /v1/sinks/records/rewind":                                  400,
		"POST /v1/sinks/records/rewind":                                 400,
		"POST /v1/sinks/records/rewind?since=x":                         400,
		"POST /v1/sinks/records/rewind?to=1&since=2026-01-31T12:00:00Z": 400,
		"GET /v1/journal?events=1001":                                   400,
		"GET /v1/sinks/records/pause":                                   404,
		"GET /v1/dead/records/8":                                        404,
		"GET /v1/dead/records/x":                                        400,
		"GET /v1/dead/records/7?stream=others":                          400,
		"GET /v1/dead?limit=0":                                          400,
		"GET /v1/dead?sink=others":                                      404,
		"GET /v1/nothing":                                               404,
	} {
		method, path, _ := strings.Cut(request, " ")
		path, query, _ := strings.Cut(path, "?")
		var failed *StatusError
		if err := client.Call(t.Context(), method, path, parseQuery(t, query), nil); !errors.As(err, &failed) || failed.Status != want || failed.Name == "" {
			t.Errorf("%s: %v, want %d", request, err, want)
		}
	}
}

// While the data folder is not open there is only the status.
func TestRequestsOfFallback(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "tidings")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	listen(t, dir, nil)
	var failed *StatusError
	if err := NewClient(dir).Call(t.Context(), "GET", "/v1/dead", nil, nil); !errors.As(err, &failed) || failed.Status != 503 {
		t.Errorf("got %v, want 503", err)
	}
}
