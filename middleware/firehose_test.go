package middleware

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/gorilla/websocket"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"

	"github.com/tidings-dev/tidings/atproto/hold"
)

// The firehose works through the handlers around our routes, does not occupy slots
// of running requests, and sends a close frame when the Handler is closed.
func TestFirehose(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	_, err := hold.Init(hold.InitConfig{Dir: filepath.Join(data, "hold"), KeyFile: filepath.Join(data, "hold.key"), Hostname: "localhost:5000", Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	config := minimalConfig("")
	config.Log.AccessLog.Disabled = false // its response writer must support Hijack as well
	config.Middleware = map[string][]configuration.Middleware{"repository": {{Name: Name, Options: configuration.Parameters{
		"data": data, "hold": map[string]any{"hostname": "localhost:5000", "reserve": "1MiB"},
	}}}}
	h, err := OpenHold(config)
	if err != nil {
		t.Fatal(err)
	}
	// The registry has this handler around its app.
	server := httptest.NewServer(otelhttp.NewHandler(h.Routes(), ""))
	defer server.Close()
	url := "ws" + strings.TrimPrefix(server.URL, "http") + "/xrpc/com.atproto.sync.subscribeRepos"

	var sockets []*websocket.Conn
	for range maxClientRequests + 10 {
		socket, _, err := websocket.DefaultDialer.Dial(url+"?cursor=0", nil)
		if err != nil {
			t.Fatalf("subscriber %d: %v", len(sockets), err)
		}
		defer socket.Close()
		sockets = append(sockets, socket)
	}
	if resp, err := http.Get(server.URL + "/xrpc/_health"); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("another request: %v %v", resp, err)
	}
	for i, want := range []string{"#identity", "#account", "#commit", "#sync"} {
		_ = sockets[0].SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, frame, err := sockets[0].ReadMessage(); err != nil || !strings.HasPrefix(string(frame[4:]), want) {
			t.Fatalf("frame %d is %.20q, want %s: %v", i, frame, want, err)
		}
	}
	if err := h.Close(t.Context()); err != nil {
		t.Error(err)
	}
	for _, socket := range sockets {
		for {
			_ = socket.SetReadDeadline(time.Now().Add(10 * time.Second))
			_, _, err := socket.ReadMessage()
			var closed *websocket.CloseError
			if err == nil {
				continue
			}
			if !errors.As(err, &closed) || closed.Code != websocket.CloseGoingAway {
				t.Fatalf("got %v, want going away", err)
			}
			break
		}
	}
}
