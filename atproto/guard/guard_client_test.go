package guard

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
)

// A client of a public server does not connect to this machine, and a client of this
// machine follows no redirect. KeepAlive differs in the number of connections only.
func TestClients(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		client      func(*url.URL) *http.Client
		connections int32
	}{"Client": {Client, 3}, "KeepAlive": {KeepAlive, 1}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var connections atomic.Int32
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
			}))
			server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
				if state == http.StateNew {
					connections.Add(1)
				}
			}
			server.Start()
			defer server.Close()
			public := test.client(&url.URL{Scheme: "https", Host: "hold.example.com"})
			if _, err := public.Get(server.URL); err == nil || !strings.Contains(err.Error(), "which is not a public address") {
				t.Errorf("public server: got %v", err)
			}
			here, err := url.Parse(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			client := test.client(here)
			for range 3 {
				resp, err := client.Get(server.URL)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != http.StatusTemporaryRedirect || resp.Request.URL.Path != "" {
					t.Errorf("got %s of %s", resp.Status, resp.Request.URL)
				}
			}
			if got := connections.Load(); got != test.connections {
				t.Errorf("got %d connections, want %d", got, test.connections)
			}
		})
	}
}
