package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/auth"
	"github.com/bluesky-social/indigo/atproto/syntax"
)

const notifyManifest = "io.atcr.hold.notifyManifest"

// sender is the account of another registry: a key, and a server of its DID document.
type sender struct {
	did string
	key atcrypto.PrivateKey
}

func newSender(t *testing.T) *sender {
	t.Helper()
	key, err := atcrypto.GeneratePrivateKeyK256()
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	a := &sender{key: key}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"id":%q,"verificationMethod":[{"id":"#atproto","type":"Multikey","controller":%[1]q,"publicKeyMultibase":%[2]q}]}`, a.did, public.Multibase())
	}))
	t.Cleanup(web.Close)
	_, port, _ := strings.Cut(strings.TrimPrefix(web.URL, "http://"), ":")
	a.did = "did:web:localhost%3A" + port
	return a
}

// token returns a service token for one request to s.
func (a *sender) token(t *testing.T, s *server) string {
	lxm := syntax.NSID(notifyManifest)
	token, err := auth.SignServiceAuth(syntax.DID(a.did), unescaped(s.did), time.Minute, &lxm, a.key)
	if err != nil {
		t.Error(err)
	}
	return token
}

// reconfigure changes the configuration of a stopped server.
func (s *server) reconfigure(old, new string) {
	s.t.Helper()
	text, err := os.ReadFile(s.config)
	if err != nil || !strings.Contains(string(text), old) {
		s.t.Fatalf("%q is not in the configuration: %v", old, err)
	}
	write(s.t, s.config, strings.ReplaceAll(string(text), old, new))
}

// notify reports an image to s. The status is 0 if there was no response.
func (s *server) notify(m image, operation, owner, token, key string) (status int, answer string) {
	body := fmt.Sprintf(`{"repository":"oss/app","tag":"v1.0.0","userDid":%q,"manifestDigest":%q,"operation":%q,"manifest":%s}`, owner, m.digest, operation, m.payload)
	header := []string{"Authorization", "Bearer " + token}
	if key != "" {
		header = append(header, "Idempotency-Key", key)
	}
	res, raw, err := s.do("POST", "/xrpc/"+notifyManifest, "application/json", []byte(body), header...)
	if err != nil {
		return 0, ""
	}
	return res.StatusCode, strings.TrimSpace(string(raw))
}

// A registry reports a push to another one with a token of its own account: the other
// one writes records with that owner, counts under the owner's name, and posts
// nothing.
func TestNotifyManifest(t *testing.T) {
	t.Parallel()
	a, b := newServer(t, settings{}), newServer(t, settings{})
	a.reconfigure("reserve: 1MiB", "reserve: 1MiB, login: true")
	owner := unescaped(a.did)
	b.reconfigure("reserve: 1MiB", fmt.Sprintf("reserve: 1MiB, registries: [%q]", owner))
	b.reconfigure(`public: ["oss/**"]`, fmt.Sprintf(`public: ["oss/**", "%s/oss/**"]`, owner))
	password, err := a.command("hold", "password", a.config).Output()
	if err != nil {
		t.Fatal(err)
	}
	a.start()
	b.start()
	var session struct{ AccessJWT string }
	_, raw, err := a.do("POST", "/xrpc/com.atproto.server.createSession", "application/json",
		fmt.Appendf(nil, `{"identifier":%q,"password":%q}`, owner, strings.TrimSpace(string(password))))
	if err != nil || json.Unmarshal(raw, &session) != nil {
		t.Fatalf("log in: %v %s", err, raw)
	}
	token := func() string {
		var grant struct{ Token string }
		a.json(t, "/xrpc/com.atproto.server.getServiceAuth?lxm="+notifyManifest+"&aud="+url.QueryEscape(unescaped(b.did)), &grant, "Authorization", "Bearer "+session.AccessJWT)
		return grant.Token
	}
	m := newImage(2)
	a.push(t, "oss/app", "v1.0.0", m)
	name := a.did + "/oss/app"
	want := `{"success":true,"operation":"push","statsUpdated":true,"layersCreated":2,"postCreated":false}`
	for i := range 2 {
		if status, got := b.notify(m, "push", owner, token(), "push 1"); status != 200 || got != want {
			t.Errorf("notification %d: %d %s", i, status, got)
		}
	}
	if status, got := b.notify(m, "pull", owner, token(), "push 1"); status != 400 || !strings.Contains(got, "Idempotency-Key") {
		t.Errorf("the same key for a pull: %d %s", status, got)
	}
	if status, got := b.notify(m, "pull", owner, token(), "pull 1"); status != 200 || got != `{"success":true,"operation":"pull","statsUpdated":true}` {
		t.Errorf("a pull: %d %s", status, got)
	}
	used := token()
	for i, want := range []int{200, 401} {
		if status, got := b.notify(m, "pull", owner, used, ""); status != want {
			t.Errorf("token used %d times before: %d %s", i, status, got)
		}
	}
	check := func() {
		t.Helper()
		var anonymous repositoryAnswer
		b.json(t, "/tidings/api/v1/repositories/"+name, &anonymous)
		if anonymous.Pushes != 1 || anonymous.Pulls != 2 || anonymous.Name != owner+"/oss/app" {
			t.Errorf("anonymous response: %+v", anonymous)
		}
		b.checkTotals(t, map[string]int{name: 1}, 2, 0)
		for _, r := range b.records(t, b.did, layerCollection) {
			if r.Value["userDid"] != owner || !strings.HasPrefix(r.Value["manifest"].(string), "at://"+owner+"/io.atcr.manifest/") {
				t.Errorf("record %v", r.Value)
			}
		}
	}
	check()

	// The same request and the same token after a kill.
	b.kill()
	b.start()
	if status, got := b.notify(m, "push", owner, token(), "push 1"); status != 200 || got != want {
		t.Errorf("after a kill: %d %s", status, got)
	}
	if status, got := b.notify(m, "pull", owner, used, ""); status != 401 || !strings.Contains(got, "BadJwtReplay") {
		t.Errorf("the same token after a kill: %d %s", status, got)
	}
	check()
	if status, got := b.notify(m, "push", owner, newSender(t).token(t, b), ""); status != 403 {
		t.Errorf("unknown sender: %d %s", status, got)
	}
}

// With hold.pulls: anyone an account that nobody configured reports a pull, with a token for
// the entry of the hold in did.json. It counts for an image that is known here and public;
// the answer is the same for all others, and a retry after a kill counts once.
func TestPullsOfAnyone(t *testing.T) {
	t.Parallel()
	a, b := newSender(t), newServer(t, settings{})
	owner := unescaped(b.did)
	b.reconfigure("reserve: 1MiB", "reserve: 1MiB, pulls: anyone")
	b.start()
	var doc struct {
		Service []struct{ ID, Type, ServiceEndpoint string }
	}
	b.json(t, "/.well-known/did.json", &doc)
	if len(doc.Service) != 2 || doc.Service[1].ID != "#atcr_hold" || doc.Service[1].ServiceEndpoint != doc.Service[0].ServiceEndpoint {
		t.Fatalf("did.json has the services %+v", doc.Service)
	}
	token := func() string {
		lxm := syntax.NSID(notifyManifest)
		signed, err := auth.SignServiceAuth(syntax.DID(a.did), owner+doc.Service[1].ID, time.Minute, &lxm, a.key)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	m, unknown := newImage(2), newImage(2)
	b.push(t, "oss/app", "v1.0.0", m)
	for round, kill := range []bool{false, true} {
		for _, report := range []image{m, unknown} {
			if status, got := b.notify(report, "pull", owner, token(), "key of "+report.digest); status != 200 || got != `{"success":true,"operation":"pull","statsUpdated":false}` {
				t.Errorf("round %d: %d %s", round, status, got)
			}
		}
		if kill {
			break
		}
		b.kill()
		b.start()
	}
	if status, got := b.notify(m, "push", owner, token(), ""); status != 403 || !strings.Contains(got, "Forbidden") {
		t.Errorf("a push: %d %s", status, got)
	}
	var got repositoryAnswer
	for deadline := time.Now().Add(30 * time.Second); got.Pulls == 0 && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		b.json(t, "/tidings/api/v1/repositories/oss/app", &got)
	}
	b.stop()
	b.start()
	if b.json(t, "/tidings/api/v1/repositories/oss/app", &got); got.Pulls != 1 || got.Pushes != 1 {
		t.Errorf("got %+v, want one pull", got)
	}
}

// The registry is killed repeatedly during notifications. Unanswered requests are sent
// again with the same key, and each is processed once.
func TestKillDuringNotifications(t *testing.T) {
	t.Parallel()
	const each = 60
	a, b := newSender(t), newServer(t, settings{})
	owner := "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
	b.reconfigure("reserve: 1MiB", fmt.Sprintf("reserve: 1MiB, registries: [%q]", a.did))
	b.reconfigure(`public: ["oss/**"]`, fmt.Sprintf("public: [%q]", owner+"/oss/*"))
	sent, unanswered := 0, 0
	for round := range rounds(t, 3) {
		images := make([]image, each)
		for i := range images {
			images[i] = newImage(1)
		}
		notifyAll := func(answered func()) (missing int) {
			var group sync.WaitGroup
			var lost atomic.Int64
			for w := range 8 {
				group.Go(func() {
					for i := w; i < each; i += 8 {
						status, answer := b.notify(images[i], "push", owner, a.token(t, b), fmt.Sprint(round, " ", i))
						switch {
						case status == 200:
							answered()
						case status == 0:
							lost.Add(1)
						default:
							t.Errorf("%d %s", status, answer)
						}
					}
				})
			}
			group.Wait()
			return int(lost.Load())
		}
		b.start()
		process, fatal := b.cmd.Process, int64(each/4*(1+round%3))
		var answered atomic.Int64
		unanswered += notifyAll(func() {
			if answered.Add(1) == fatal {
				process.Kill()
			}
		})
		b.kill()
		b.start()
		if lost := notifyAll(func() {}); lost > 0 {
			t.Errorf("%d unanswered", lost)
		}
		sent += each
		b.waitDrained()
		b.checkTotals(t, map[string]int{owner + "/oss/app": sent}, sent, 0)
		b.kill()
	}
	if unanswered == 0 {
		t.Error("all requests were answered: killed too late")
	}
}
