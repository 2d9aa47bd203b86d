package hold

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/identity/identitytest"

	comatproto "github.com/bluesky-social/indigo/api/atproto"

	"github.com/tidings-dev/tidings/atproto/repo"
)

const newHost = "https://pds.example.com"

// movable returns a hold with some records and a session, and a function that
// starts it again with the account at another host; nil is this hold.
func movable(t testing.TB, relays ...string) (h *testHold, serve func(*identity.MovedTo)) {
	t.Helper()
	var cfg *Config
	h = newHold(t, func(c *Config) { cfg, c.Network = c, newNetwork(t, *c, relays...) })
	h.Token = h.token()
	h.fill(3, 3)
	return h, func(to *identity.MovedTo) {
		t.Helper()
		again := *cfg
		again.MovedTo = to
		again.Network = newNetwork(t, again, relays...)
		var err error
		if h.server, err = New(again); err != nil {
			t.Fatal(err)
		}
		web := httptest.NewServer(h.server)
		t.Cleanup(web.Close)
		h.URL = web.URL
		if err := h.server.UpdateStatus(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// kinds returns the kinds of the events after a sequence number; for #account, also
// whether it is active.
func (h *testHold) kinds(after uint64) (kinds []string) {
	h.Helper()
	events, err := h.repo.Events(after, 100)
	if err != nil {
		h.Fatal(err)
	}
	for _, e := range events {
		kind := string(e.Frame[4 : 4+int(e.Frame[3]&0x1f)])
		if kind == "#account" {
			msg := decode[comatproto.SyncSubscribeRepos_Account](h.TB, e.Frame[bytes.Index(e.Frame, []byte("bop\x01"))+4:])
			if kind = "#account active"; !msg.Active {
				kind = "#account " + *msg.Status
			}
		}
		kinds = append(kinds, kind)
	}
	return kinds
}

func TestMovedAway(t *testing.T) {
	t.Parallel()
	h, serve := movable(t)
	before := h.repo.Head()
	record, _, err := h.repo.Get(coll, "k00")
	if err != nil {
		t.Fatal(err)
	}
	whole := h.raw("com.atproto.sync.getRepo?did=%")

	serve(&identity.MovedTo{Service: newHost, Key: otherKey})
	wants := []string{"#identity", "#account deactivated"}
	if got := h.kinds(before.Seq); !slices.Equal(got, wants) {
		t.Errorf("events %q, want %q", got, wants)
	}
	if !strings.Contains(h.logged(), "the account has moved: did.json shows its new host") {
		t.Errorf("the log does not say that the account has moved:\n%s", h.logged())
	}
	events := h.subscribe("?cursor=" + jsonOf(before.Seq))
	for _, want := range []string{"#identity", "#account"} {
		if kind, _ := events.next(); kind != want {
			t.Errorf("subscriber: got %s, want %s", kind, want)
		}
	}

	doc := h.didDoc()
	want := `[{"id":"#atproto_pds","serviceEndpoint":"` + newHost + `","type":"AtprotoPersonalDataServer"},{"id":"#atcr_hold","serviceEndpoint":"https://` + testHost + `","type":"AtcrHoldService"}]`
	if got := jsonOf(doc["service"]); got != want {
		t.Errorf("did.json: service %s", got)
	}
	if got := jsonOf(doc["verificationMethod"]); !strings.Contains(got, otherKey) || doc["id"] != h.DID {
		t.Errorf("did.json of %v: keys %s", doc["id"], got)
	}
	if _, body := h.Do(h.Request("GET", "/.well-known/atproto-did", "")); string(body) != h.DID {
		t.Errorf("atproto-did: %s", body)
	}

	const refused = "Account is deactivated"
	for method, body := range map[string]string{
		apply:                           writes(`create k {}`),
		"com.atproto.repo.createRecord": `{"repo":"%","collection":"` + coll + `","record":{}}`,
		"com.atproto.repo.putRecord":    `{"repo":"%","collection":"` + coll + `","rkey":"k00","record":{}}`,
		"com.atproto.repo.deleteRecord": `{"repo":"%","collection":"` + coll + `","rkey":"gone"}`,
		"com.atproto.repo.uploadBlob":   `{}`,
		"com.atproto.repo.importRepo":   `{}`,
	} {
		h.Want("POST", method, body, 401, "AccountDeactivated", refused)
	}
	h.Want("POST", apply, strings.Replace(writes(`create k {}`), "%", "did:web:other.example.com", 1), 403, "AccountNotFound", "")
	if _, err := h.repo.Apply(t.Context(), nil, nil); !errors.Is(err, repo.ErrDeactivated) || !strings.Contains(err.Error(), newHost) {
		t.Errorf("write in process: %v", err)
	}

	session := h.Token
	for _, query := range []string{
		"getRepo?did=%", "getCheckout?did=%", "getLatestCommit?did=%", "getHead?did=%", "getCommitPath?did=%", "listBlobs?did=%",
		"getRecord?did=%&collection=" + coll + "&rkey=k00", "getBlocks?did=%&cids=" + record.String(),
	} {
		h.Token = ""
		h.Want("GET", "com.atproto.sync."+query, "", 400, "RepoDeactivated", "Repo has been deactivated: %; the account has moved to "+newHost)
		h.Token = "x" + session
		h.Want("GET", "com.atproto.sync."+query, "", 400, "InvalidToken", "")
		h.Token = session
		if resp, body := h.Do(h.Request("GET", "/xrpc/com.atproto.sync."+strings.ReplaceAll(query, "%", h.DID), "")); resp.StatusCode != 200 {
			t.Errorf("%s with a session: %d %.200s", query, resp.StatusCode, body)
		}
	}
	h.Want("GET", "com.atproto.sync.getBlob?did=%&cid="+record.String(), "", 400, "InvalidRequest", "Blob not found")
	if got := h.raw("com.atproto.sync.getRepo?did=%"); !bytes.Equal(got, whole) {
		t.Errorf("getRepo with a session gives %d bytes, before the move it gave %d", len(got), len(whole))
	}
	if got := h.Want("GET", "com.atproto.server.getSession", "", 200, "", ""); got["active"] != false || got["status"] != "deactivated" {
		t.Errorf("getSession: %v", got)
	}

	h.Token = ""
	h.Want("GET", "com.atproto.sync.getBlob?did=%&cid="+record.String(), "", 400, "RepoDeactivated", "")
	h.Want("GET", "com.atproto.sync.getRepo?did=did:web:other.example.com", "", 400, "RepoNotFound", "")
	h.Want("GET", "com.atproto.repo.describeRepo?repo="+testHost, "", 400, "RepoDeactivated", "Repo has been deactivated: "+testHost)
	h.Want("GET", get+"?repo=%&collection="+coll+"&rkey=k00", "", 400, "InvalidRequest", "Could not locate record")
	h.Want("GET", "com.atproto.repo.listRecords?repo=%&collection="+coll, "", 400, "InvalidRequest", "Could not find repo")
	if got := jsonOf(h.Want("GET", "com.atproto.sync.getRepoStatus?did=%", "", 200, "", "")); got != `{"active":false,"did":"`+h.DID+`","status":"deactivated"}` {
		t.Errorf("getRepoStatus: %s", got)
	}
	list := h.Want("GET", "com.atproto.sync.listRepos", "", 200, "", "")
	if one := list["repos"].([]any)[0].(map[string]any); one["active"] != false || one["status"] != "deactivated" || one["rev"] != before.Rev {
		t.Errorf("listRepos: %v", list)
	}
	h.Want("GET", "_health", "", 200, "", "")
	if after := h.repo.Head(); after.Commit != before.Commit {
		t.Errorf("the head changed to %+v", after)
	}
}

// A change of the host is announced once, at the first start; so is the return of
// the account.
func TestMovedAwayAndBack(t *testing.T) {
	t.Parallel()
	h, serve := movable(t)
	last := h.repo.Head().Seq
	events := func(start string, want ...string) {
		t.Helper()
		if got := h.kinds(last); !slices.Equal(got, want) {
			t.Errorf("%s: events %q, want %q", start, got, want)
		}
		last = h.repo.Head().Seq
	}
	serve(nil)
	events("here")
	serve(&identity.MovedTo{Service: newHost})
	events("the first start", "#identity", "#account deactivated")
	if got := h.server.doc.SigningKey(); got != h.publicKey().Multibase() {
		t.Errorf("the key is %s in did.json", got)
	}
	serve(&identity.MovedTo{Service: newHost})
	events("the second start")
	serve(&identity.MovedTo{Service: newHost, Key: otherKey})
	events("another key", "#identity", "#account deactivated")
	log := eventLog{h.repo}
	if err := log.introduce(t.Context()); err != nil {
		t.Error(err)
	}
	for _, folder := range []string{"here", "elsewhere"} {
		if _, err := h.repo.SetFolder(t.Context(), folder); err != nil {
			t.Error(err)
		}
	}
	events("for a new relay, and by a copy", "#identity", "#account deactivated", "#identity", "#account deactivated")

	serve(nil)
	events("back", "#identity", "#account active", "#sync")
	serve(nil)
	events("back, the second start")
	h.Want("POST", apply, writes(`create k {}`), 200, "", "")
	if got := h.Want("GET", "com.atproto.sync.getRepoStatus?did=%", "", 200, "", ""); got["active"] != true || got["rev"] != h.repo.Head().Rev {
		t.Errorf("getRepoStatus: %v", got)
	}
	if host := h.server.doc.Host(); host != "https://"+testHost {
		t.Errorf("did.json has the host %s", host)
	}
	if err := log.introduce(t.Context()); err != nil {
		t.Error(err)
	}
	events("written and introduced", "#commit", "#identity", "#account active", "#sync")
}

// For an account that has moved the document is checked, but writes are not
// suspended.
func TestCheckIdentityMoved(t *testing.T) {
	t.Parallel()
	h, serve := movable(t)
	ours := h.server.doc.SigningKey()
	old := h.document(ours, ours)
	serve(&identity.MovedTo{Service: newHost, Key: otherKey})
	for _, tc := range []struct {
		name   string
		answer identitytest.Answer
		error  string
	}{
		{"new host", h.document(newHost, newHost), ""},
		{"relative IDs", h.document("#atproto_pds", h.DID+"#atproto_pds"), ""},
		{"old host", old, `shows the account at "https://` + testHost + `" with the key "` + ours + `", but it has moved to "` + newHost + `"`},
		{"another host", h.document(newHost, "https://third.example.com"), "third.example.com"},
		{"another key", h.document(otherKey, ours), "with the key"},
		{"no host", h.document("#atproto_pds", "#other"), `shows the account at ""`},
		{"no connection", identitytest.Answer{}, "no route"},
	} {
		h.publish(tc.answer)
		err := h.server.CheckIdentity(t.Context())
		if err == nil && tc.error != "" || err != nil && (tc.error == "" || !strings.Contains(err.Error(), tc.error)) {
			t.Errorf("%s: %v", tc.name, err)
		}
		if err := h.repo.Suspended(); err != nil {
			t.Errorf("%s: suspended: %v", tc.name, err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		h.publish(old, old, h.document(newHost, newHost))
		h.server.watchIdentity(t.Context())
	})
	if n := strings.Count(h.logged(), "does not show that the account has moved"); n != 1 {
		t.Errorf("logged %d times, want 1:\n%s", n, h.logged())
	}
}

// The replacement for a hold that cannot be opened shows the new host.
func TestBrokenAndMoved(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	id := h.server.id
	id.MovedTo = &identity.MovedTo{Service: newHost, Key: otherKey}
	b, err := NewBroken(&BrokenError{id, errors.New("bad disk")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(b)
	t.Cleanup(web.Close)
	h.URL = web.URL
	if got := jsonOf(h.didDoc()); !strings.Contains(got, newHost) || !strings.Contains(got, otherKey) {
		t.Errorf("did.json: %s", got)
	}
}

// A failed announcement is repeated.
func TestUpdateStatusRetry(t *testing.T) {
	t.Parallel()
	h, serve := movable(t)
	serve(&identity.MovedTo{Service: newHost})
	h.server.id.MovedTo = nil
	h.repo.Suspend(errors.New("another key"))
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second)
		defer cancel()
		if h.server.retryUpdateStatus(ctx) {
			t.Error("succeeded while writes are suspended")
		}
	})
	if n := strings.Count(h.logged(), "can't inform subscribers yet"); n != 4 { // after 0, 10, 30 and 70 s
		t.Errorf("%d attempts in 100 s, want 4:\n%s", n, h.logged())
	}
	h.repo.Suspend(nil)
	if !h.server.retryUpdateStatus(t.Context()) || h.repo.MovedTo() != "" {
		t.Error("the status is not updated")
	}
}

// Relays are asked to crawl by the process that announced the move, and by no later
// one.
func TestRequestCrawlMovedOnce(t *testing.T) {
	t.Parallel()
	requests := make(chan string, 10)
	relay := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { requests <- r.URL.Path }))
	t.Cleanup(relay.Close)
	h, serve := movable(t, relay.URL)
	if !h.server.needsCrawl() {
		t.Error("no crawl for an active account")
	}
	serve(&identity.MovedTo{Service: newHost})
	first := h.server
	serve(&identity.MovedTo{Service: newHost})
	if !first.needsCrawl() || h.server.needsCrawl() {
		t.Errorf("crawl at the first start: %v, at the second: %v", first.needsCrawl(), h.server.needsCrawl())
	}
	h.server = first
	h.publish(h.document(newHost, newHost))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- first.Run(ctx) }()
	if got := <-requests; got != "/xrpc/com.atproto.sync.requestCrawl" {
		t.Errorf("got request %s", got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
