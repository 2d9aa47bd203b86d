package firehose

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// patience is how long a test waits for something that must happen.
const patience = 20 * time.Second

// serve runs a firehose over a real listener.
func serve(t testing.TB, cfg Config) (*Firehose, string) {
	t.Helper()
	f := New(cfg)
	server := httptest.NewServer(f)
	t.Cleanup(func() {
		if err := f.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		server.Close()
	})
	return f, "ws" + strings.TrimPrefix(server.URL, "http")
}

// client is a subscriber.
type client struct {
	testing.TB
	*websocket.Conn
}

func dial(t testing.TB, url, query string) *client {
	t.Helper()
	conn, resp, err := websocket.DefaultDialer.Dial(url+"/xrpc/com.atproto.sync.subscribeRepos"+query, nil)
	if err != nil {
		t.Fatalf("dial %q: %v %v", query, err, resp)
	}
	t.Cleanup(func() { conn.Close() })
	return &client{t, conn}
}

// dialSmall connects with a small receive buffer, so that few bytes can be sent to a
// client that does not read.
func dialSmall(t testing.TB, url, query string) *client {
	t.Helper()
	dialer := websocket.Dialer{NetDialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return conn, conn.(*net.TCPConn).SetReadBuffer(64 << 10)
	}}
	conn, _, err := dialer.Dial(url+"/"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &client{t, conn}
}

// next reads a message.
func (c *client) next() string {
	c.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	kind, message, err := c.ReadMessage()
	if err != nil || kind != websocket.BinaryMessage {
		c.Fatalf("message of type %d: %v", kind, err)
	}
	return string(message)
}

// seq reads a frame of a memLog.
func (c *client) seq() (seq uint64) {
	c.Helper()
	message := c.next()
	if _, err := fmt.Sscanf(message, "%d ", &seq); err != nil {
		c.Fatalf("message %.60q: %v", message, err)
	}
	return seq
}

func (c *client) want(seqs ...uint64) {
	c.Helper()
	for _, want := range seqs {
		if got := c.seq(); got != want {
			c.Fatalf("seq %d, want %d", got, want)
		}
	}
}

// wantError reads an error frame and the close that follows it.
func (c *client) wantError(name string) {
	c.Helper()
	if got := c.next(); !strings.HasPrefix(got, "\xa1bop\x20\xa2eerror") || !strings.Contains(got, name) {
		c.Errorf("message %q, want the error %s", got, name)
	}
	c.wantClose(websocket.ClosePolicyViolation, name)
}

func (c *client) wantClose(code int, text string) {
	c.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	_, message, err := c.ReadMessage()
	var closed *websocket.CloseError
	if !errors.As(err, &closed) || closed.Code != code || closed.Text != text {
		c.Errorf("%q, %v; want close %d %q", message, err, code, text)
	}
}

// eventually waits until a condition holds.
func eventually(t testing.TB, condition string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("timeout waiting for: %s", condition)
		}
	}
}

func seqs(from, to uint64) (all []uint64) {
	for seq := from; seq <= to; seq++ {
		all = append(all, seq)
	}
	return all
}

func get(t *testing.T, url string) (*http.Response, error) {
	t.Helper()
	return http.Get("http" + strings.TrimPrefix(url, "ws"))
}
