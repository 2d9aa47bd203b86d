package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/cmd/tidings/internal/accountcmd"
	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
	"github.com/tidings-dev/tidings/middleware/admin"
	"github.com/tidings-dev/tidings/middleware/datafolder"
)

// testAccount is an account on a PDS, a hold of its own, and the configuration c.yml of
// a registry that writes to it.
type testAccount struct {
	did, service string
	dir          string // of the configuration
	password     string
	stop         func() // the PDS
}

func newTestAccount(t *testing.T) *testAccount {
	t.Helper()
	addr := freeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
	hold := newHold(t, fmt.Sprintf("hold: {hostname: \"localhost:%s\", reserve: 1MiB, login: true}\nhttp: {addr: %q}", port, addr))
	a := &testAccount{did: "did:web:localhost%3A" + port, service: "http://localhost:" + port, dir: t.TempDir()}
	a.password = strings.TrimSpace(expect(t, hold, 0, []string{"hold", "password", "c.yml"}))
	_, a.stop = startHoldServe(t, hold)
	a.configure(t, "")
	a.setPassword(t, a.password)
	return a
}

// configure writes the configuration, with more options of the section.
func (a *testAccount) configure(t *testing.T, more string) {
	t.Helper()
	file(t, a.dir, "c.yml", fmt.Sprintf("data: ./data\npublic: [\"oss/**\"]\naccount: {service: %q, identifier: %q, password_file: ./password%s}", a.service, a.did, more))
}

func (a *testAccount) setPassword(t *testing.T, password string) {
	t.Helper()
	write(t, filepath.Join(a.dir, "password"), password)
}

// get returns a record of the account.
func (a *testAccount) get(t *testing.T, collection string) string {
	t.Helper()
	_, body := get(t, a.service+"/xrpc/com.atproto.repo.getRecord?rkey=self&collection="+collection+"&repo="+strings.ReplaceAll(a.did, "%", "%25"))
	return body
}

func TestAccountInit(t *testing.T) {
	t.Parallel()
	a := newTestAccount(t)
	defer a.stop()
	run := func(code int, args []string, says ...string) {
		t.Helper()
		out := expect(t, a.dir, code, append([]string{"account", "init", "c.yml"}, args...), says...)
		if strings.Contains(out, a.password) {
			t.Errorf("prints the password:\n%s", out)
		}
	}
	bot, hidden := "bot label                    ", "hidden from recommendations  "
	run(0, nil, a.did, a.service, "kept in data/account.json", bot+"yes (--bot=false changes it)", hidden+"no (--hide-from-recommendations changes it)")
	run(0, []string{"--bot", "--hide-from-recommendations"}, bot+"yes (unchanged)", hidden+"yes (changed)")
	if got := a.get(t, "app.bsky.actor.contentVisibilityDeclaration"); !strings.Contains(got, `"hideFromAlgorithmicRecommendations":true`) {
		t.Error(got)
	}
	run(0, []string{"--bot=false", "--hide-from-recommendations"}, bot+"no (changed)", hidden+"yes (unchanged)")
	if got := a.get(t, "app.bsky.actor.profile"); strings.Contains(got, `"bot"`) || !strings.Contains(got, "displayName") {
		t.Error(got)
	}
	run(0, nil, bot+"no (--bot changes it)", hidden+"yes (--hide-from-recommendations=false changes it)")
	if info, err := os.Stat(filepath.Join(a.dir, "data", "account.json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the session: %v, %v", info, err)
	}
}

func TestAccountCommandsWithoutAccount(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file(t, dir, "c.yml", "data: ./data")
	for _, command := range []string{"init", "status"} {
		expect(t, dir, 1, []string{"account", command, "c.yml"}, "c.yml has no account section; add `account: {service")
	}
	if cli.Exists(filepath.Join(dir, "data")) {
		t.Error("the data folder is created")
	}
}

func TestAccountInitErrors(t *testing.T) {
	t.Parallel()
	a := newTestAccount(t)
	a.setPassword(t, "wrong-password")
	out := expect(t, a.dir, 1, []string{"account", "init", "--bot", "c.yml"}, "the service refused the password in")
	if strings.Contains(out, "wrong-password") {
		t.Errorf("prints the password:\n%s", out)
	}
	expect(t, a.dir, 0, []string{"account", "status", "c.yml"}, "session  none; the next call logs in", "has refused the password once", "1 of 10 in 5m")
	expect(t, a.dir, 1, []string{"account", "init", "c.yml"}, "the next login is at")
	a.stop()
	expect(t, a.dir, 1, []string{"account", "init", "c.yml"}, "connection refused")
}

func TestAccountStatus(t *testing.T) {
	t.Parallel()
	a := newTestAccount(t)
	status := []string{"account", "status", "c.yml"}
	expect(t, a.dir, 0, status, "account  "+a.did, "session  none; the next call logs in", "logins   0 of 10 in 5m", "5000 of 5000 points left in the hour",
		"35000 of 35000 points left in the day", "backlog  the registry is not running")
	if cli.Exists(filepath.Join(a.dir, "data")) {
		t.Error("the data folder is created")
	}
	expect(t, a.dir, 0, []string{"account", "init", "--hide-from-recommendations", "c.yml"})
	expect(t, a.dir, 0, status, "session  valid until 20", "1 of 10 in 5m", "1 of 100 in 24h", "4998 of 5000 points left in the hour")
	var r accountcmd.Report
	out := expect(t, a.dir, 0, append(status, "--json"))
	if err := json.Unmarshal([]byte(out), &r); err != nil || r.DID != a.did || !r.Session.LoggedIn || r.Session.Until.IsZero() || r.Budget.Day.Left != 34998 || r.Backlog.Running {
		t.Errorf("%v: %s", err, out)
	}
	if strings.Contains(out, a.password) || strings.Contains(out, "eyJ") {
		t.Errorf("prints a secret:\n%s", out)
	}
	a.configure(t, ", budget: {hour: off, day: off}")
	expect(t, a.dir, 0, status, "budget   no limit")
	a.stop()
	expect(t, a.dir, 0, status, "account  "+a.did, "problem  resolve", "session  valid until 20")
}

// The backlog is that of the running registry, which serves it at the admin socket.
func TestAccountStatusOfRunningRegistry(t *testing.T) {
	t.Parallel()
	a := newTestAccount(t)
	expect(t, a.dir, 0, []string{"account", "init", "c.yml"})
	a.stop()
	data := filepath.Join(a.dir, "data")
	unlock, err := datafolder.Lock(filepath.Join(data, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	status := []string{"account", "status", "c.yml"}
	expect(t, a.dir, 0, status, "backlog  the registry does not answer: a process uses the data folder")

	registry, err := admin.Listen(data, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"sinks":[`+
			`{"stream":"pushes","sink":"records","state":"paused","reason":"the points are spent","until":"2026-11-01T13:00:00Z","depth":1,"oldestSeconds":90,"deadLetters":2},`+
			`{"stream":"pushes","sink":"announce","state":"ok","depth":0,"oldestSeconds":0,"deadLetters":0},`+
			`{"stream":"pulls","sink":"counters","state":"ok","depth":0,"oldestSeconds":0,"deadLetters":0}]}`)
	}), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer registry.Close(context.Background())
	out := expect(t, a.dir, 0, status, "backlog  records: paused, 1 pending event, the oldest from 1m30s ago, 2 dead letters", "the points are spent; until 2026-11-01T13:00:00Z",
		"announce: ok, nothing pending")
	if strings.Contains(out, "counters") {
		t.Error(out)
	}
	var r accountcmd.Report
	out = expect(t, a.dir, 0, append(status, "--json"))
	if err := json.Unmarshal([]byte(out), &r); err != nil || !r.Backlog.Running || len(r.Backlog.Sinks) != 2 || r.Backlog.Sinks[0].Depth != 1 {
		t.Errorf("%v: %s", err, out)
	}
	expect(t, a.dir, 1, []string{"account", "init", "--bot", "c.yml"}, "a server is using the data folder", "stop it first")
}

func TestConfigCheckOnlineAccount(t *testing.T) {
	t.Parallel()
	a := newTestAccount(t)
	online := []string{"config", "check", "--online", "c.yml"}
	expect(t, a.dir, 0, online, "c.yml is valid", "account   "+a.did, "the DID document names this service", "logged in; not kept, because there is no data folder yet")
	if cli.Exists(filepath.Join(a.dir, "data")) {
		t.Error("the data folder is created")
	}
	expect(t, a.dir, 0, []string{"account", "init", "c.yml"})
	a.setPassword(t, "changed since") // the session is used
	expect(t, a.dir, 0, online, "logged in; kept in data/account.json")
	if err := os.Remove(filepath.Join(a.dir, "data", "account.json")); err != nil {
		t.Fatal(err)
	}
	expect(t, a.dir, 1, online, "session   problem: ", "the service refused the password", "the online check found problems")
	a.stop()
	expect(t, a.dir, 1, online, "account  problem: ", "connection refused")
}
