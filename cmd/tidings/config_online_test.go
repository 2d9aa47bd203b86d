package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// fakeRelay answers whether it knows an account.
type fakeRelay struct {
	*httptest.Server
	knows atomic.Bool
	calls atomic.Int32
}

func newFakeRelay(t *testing.T) *fakeRelay {
	r := &fakeRelay{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.calls.Add(1)
		w.Header().Set("Content-Type", "application/json")
		if !r.knows.Load() {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"error":"RepoNotFound","message":"no"}`)
			return
		}
		fmt.Fprint(w, `{"active":true,"rev":"3kaaaaaaaaa22"}`)
	}))
	t.Cleanup(r.Close)
	return r
}

// The DID document that is served is compared with the key.
func TestConfigCheckOnline(t *testing.T) {
	t.Parallel()
	addr := freeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
	options := fmt.Sprintf("public: [\"oss/**\"]\nhold: {hostname: \"localhost:%s\", reserve: 1MiB}\nhttp: {addr: %q}", port, addr)
	dir, online := newHold(t, options), []string{"config", "check", "--online", "c.yml"}
	expect(t, dir, 1, online, "c.yml is valid", "did:web:localhost%3A"+port, "problem: Get \"http://localhost", "the online check found problems")
	_, stop := startHoldServe(t, dir)
	defer stop()
	expect(t, dir, 0, online, "the DID document agrees with the configuration")
	copied := newHold(t, options) // with another key for the same hostname
	expect(t, copied, 1, online, "problem: the DID document has another key")
}

// Relays are asked whether they know the account only with --online.
func TestConfigCheckOnlineRelays(t *testing.T) {
	t.Parallel()
	relay := newFakeRelay(t)
	dir := newHold(t, fmt.Sprintf("public: [\"oss/**\"]\nhold: {hostname: registry.invalid, reserve: 1MiB, relays: [%q]}", relay.URL))
	online := []string{"config", "check", "--online", "c.yml"}
	if out := expect(t, dir, 0, []string{"config", "check", "c.yml"}, "c.yml is valid"); strings.Contains(out, "Online:") || relay.calls.Load() > 0 {
		t.Errorf("%d calls without --online:\n%s", relay.calls.Load(), out)
	}
	expect(t, dir, 1, online, "document  problem: ", "unknown: it does not know the account")
	relay.knows.Store(true)
	expect(t, dir, 1, online, "document  problem: ", "knows the account\n")
}

func TestConfigCheckOnlineWithoutAccount(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file(t, dir, "c.yml", "data: ./data")
	expect(t, dir, 0, []string{"config", "check", "--online", "c.yml"}, "none, so there is nothing to ask")
	file(t, dir, "c.yml", "data: ./data\npublic: [a]\nhold: {hostname: registry.example.com}")
	expect(t, dir, 0, []string{"config", "check", "--online", "c.yml"}, "it does not exist yet")
	file(t, dir, "c.yml", "enabled: false")
	if out := expect(t, dir, 0, []string{"config", "check", "--online", "c.yml"}, "disables Tidings"); strings.Contains(out, "Online") {
		t.Error(out)
	}
}
