package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/remote/remotetest"
	"github.com/tidings-dev/tidings/internal/faultproxy"
)

// remotePair is a registry that reports to a hold, and a proxy in front of the hold.
type remotePair struct {
	registry, hold *server
	proxy          *faultproxy.Proxy
}

// newRemotePair configures both. The hold is at an address of its own, behind the proxy.
func newRemotePair(t *testing.T, trusted string) *remotePair {
	t.Helper()
	p := &remotePair{hold: newServer(t, settings{})}
	p.registry = newServer(t, settings{remote: unescaped(p.hold.did)})
	inner := freeAddr(t)
	p.hold.reconfigure(fmt.Sprintf("addr: %q", p.hold.host), fmt.Sprintf("addr: %q", inner))
	sender := unescaped(p.registry.did)
	p.hold.reconfigure("reserve: 1MiB", fmt.Sprintf("reserve: 1MiB, %s: [%q]", trusted, sender))
	p.hold.reconfigure(`public: ["oss/**"]`, fmt.Sprintf(`public: ["%s/oss/**"]`, sender))
	var err error
	if p.proxy, err = faultproxy.New("http://"+inner, nil); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", p.hold.host)
	if err != nil {
		t.Fatal(err)
	}
	front := &http.Server{Handler: p.proxy}
	go front.Serve(listener)
	t.Cleanup(func() { front.Close() })
	return p
}

// remotePush is a push in the API.
type remotePush struct {
	ID, Repository, State, Reason string
	Layers                        int
	LayersRecorded                *int
	Remote                        *lexicon.NotifyManifestOutput
}

func (s *server) remotePushes() []remotePush {
	s.t.Helper()
	var answer struct{ Pushes []remotePush }
	s.json(s.t, "/tidings/api/v1/pushes?limit=1000", &answer, s.token()...)
	return answer.Pushes
}

// A registry reports its pushes to a hold, both as processes. Whatever is killed and
// whichever answers are lost, each push is recorded once and counted once.
func TestRemote(t *testing.T) {
	t.Parallel()
	p := newRemotePair(t, "registries")
	p.hold.startHold()
	p.registry.start()
	push := func(repository, tag string) {
		m := newImage(2)
		if err := p.registry.upload(repository, m); err == nil {
			_, _ = p.registry.put(repository, tag, m) // the process may be killed meanwhile
		}
	}
	img, err := random.Image(512, 3)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.NewTag(p.registry.host+"/oss/app:v1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
	p.registry.push(t, "secret/app", "v1", newImage(1))
	for range 3 {
		if status, err := p.registry.get("oss/app", "v1"); status != http.StatusOK || err != nil {
			t.Errorf("pull: %d, %v", status, err)
		}
	}
	p.registry.waitDrained()

	// The answers are lost, and both are killed.
	lost := faultproxy.Fault{Kind: faultproxy.Cut, Delivered: true, Method: notifyManifest}
	p.proxy.Start(lost)
	for i := range 4 {
		push(fmt.Sprint("oss/lost", i), "v1")
	}
	for end := time.Now().Add(20 * time.Second); p.proxy.Start(lost) == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no call\n%s", p.registry.log)
		}
	}
	p.registry.kill()
	p.hold.kill()
	p.proxy.End()
	p.hold.startHold()

	// The hold is killed while pushes are reported, and the registry while it is pushed to.
	p.registry.start()
	var group sync.WaitGroup
	for w := range 3 {
		group.Go(func() {
			for i := range 10 {
				push(fmt.Sprint("oss/app", w), fmt.Sprint("v", i))
			}
		})
	}
	time.Sleep(300 * time.Millisecond)
	p.hold.kill()
	p.registry.cmd.Process.Kill()
	group.Wait()
	p.registry.kill()
	p.hold.startHold()
	p.registry.start()
	for w := range 3 {
		push(fmt.Sprint("oss/app", w), "last")
	}
	p.registry.waitDrained()
	p.hold.waitDrained()
	p.check(t)
}

// check compares the pushes and pulls of the registry with those that the hold has.
func (p *remotePair) check(t *testing.T) {
	t.Helper()
	layers, pushes := 0, map[string]int{}
	for _, push := range p.registry.remotePushes() {
		if push.Repository == "secret/app" {
			if push.State != "counted" || push.Remote != nil {
				t.Errorf("a private push: %+v", push)
			}
			continue
		}
		pushes[push.Repository]++
		layers += push.Layers
		a := push.Remote
		if push.State != "done" || push.Reason != "" || a == nil || !a.Success || a.Operation != "push" || !a.StatsUpdated ||
			a.LayersCreated == nil || *a.LayersCreated != push.Layers || a.PostCreated == nil || *a.PostCreated || a.PostURI != "" {
			t.Errorf("push %+v, answer %+v", push, a)
		}
	}
	reported := map[string]int{}
	for repository, n := range pushes {
		if got := p.registry.counts(repository).Pushes; got != int64(n) {
			t.Errorf("%s: %d pushes are counted by the registry, %d listed", repository, got, n)
		}
		reported[p.registry.did+"/"+repository] = n
	}
	if len(pushes) != 8 {
		t.Errorf("pushes of %v", pushes)
	}
	p.hold.checkTotals(t, reported, layers, 0)
	if got := p.hold.counts(p.registry.did + "/oss/app").Pulls; got != 3 {
		t.Errorf("%d pulls were reported, want 3", got)
	}
	for _, r := range p.hold.records(t, p.hold.did, layerCollection) {
		if r.Value["userDid"] != unescaped(p.registry.did) {
			t.Errorf("record %v", r.Value)
		}
	}
	var health struct {
		Status string
		Remote struct{ Status, Hold, DID, Endpoint, Keys string }
	}
	p.registry.json(t, "/tidings/api/v1/health", &health)
	if r := health.Remote; health.Status != "ok" || r.Status != "ok" || r.Hold != unescaped(p.hold.did) || r.DID != unescaped(p.registry.did) || r.Keys != "honored" || r.Endpoint != "http://localhost"+p.hold.host[strings.LastIndexByte(p.hold.host, ':'):] {
		t.Errorf("health %+v", health)
	}
}

// Pushes that the hold refuses are dead letters.
func TestRemoteRefused(t *testing.T) {
	t.Parallel()
	t.Run("UserMismatch", func(t *testing.T) {
		t.Parallel()
		p := newRemotePair(t, "owners")
		p.registry.reconfigure("reserve: 1MiB", "owner: did:plc:ewvi7nxzyoun6zhxrhs64oiz")
		p.hold.startHold()
		checkRefused(t, p.registry, "UserMismatch")
	})
	t.Run("InvalidOperation", func(t *testing.T) {
		t.Parallel()
		hold := remotetest.New(t, remotetest.Config{Keys: true})
		hold.Refuse(http.StatusBadRequest, nil, `{"error":"InvalidOperation","message":"no such operation"}`)
		checkRefused(t, newServer(t, settings{remote: hold.DID}), "InvalidOperation")
	})
}

func checkRefused(t *testing.T, s *server, reason string) {
	t.Helper()
	s.start()
	s.push(t, "oss/app", "v1", newImage(1))
	s.waitDrained()
	pushes := s.remotePushes()
	if len(pushes) != 1 || pushes[0].State != "failed" || !strings.Contains(pushes[0].Reason, reason) {
		t.Errorf("pushes %+v", pushes)
	}
	var health struct {
		Sinks []struct {
			Sink        string
			DeadLetters int
		}
	}
	s.json(t, "/tidings/api/v1/health", &health, s.token()...)
	if len(health.Sinks) == 0 || health.Sinks[0].Sink != "remote" || health.Sinks[0].DeadLetters != 1 {
		t.Errorf("health %+v", health)
	}
}

// The commands of the sender, its DID document, and its key.
func TestRemoteCommands(t *testing.T) {
	t.Parallel()
	p := newRemotePair(t, "registries")
	s, did := p.registry, unescaped(p.registry.did)
	run := func(code int, args []string, says ...string) string {
		t.Helper()
		cmd := s.command(args...)
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != code {
			t.Errorf("%v: code %d, want %d", args, got, code)
		}
		for _, want := range says {
			if !strings.Contains(string(out), want) {
				t.Errorf("%v: missing %q:\n%s", args, want, out)
			}
		}
		return string(out)
	}
	p.hold.startHold()
	run(0, []string{"config", "check", s.config}, "to the hold "+unescaped(p.hold.did), "sender     "+did)
	key := filepath.Join(s.dir, "tidings", "remote.key")
	run(0, []string{"remote", "init", s.config}, "The registry is "+did, "was created: "+key, "/.well-known/did.json", fmt.Sprintf("registries: [%q]", did))
	run(0, []string{"remote", "init", s.config}, "exists already: "+key)
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v", info, err)
	}
	run(1, []string{"config", "check", "--online", s.config}, "endpoint  http://localhost", "problem: the registry has to serve it")
	s.start()
	var document map[string]any
	s.json(t, "/.well-known/did.json", &document)
	if methods, _ := document["verificationMethod"].([]any); document["id"] != did || len(methods) != 1 || len(document["service"].([]any)) != 0 || document["alsoKnownAs"] != nil {
		t.Errorf("did.json %v", document)
	}
	run(0, []string{"config", "check", "--online", s.config}, "the DID document has the key")
	s.push(t, "oss/app", "v1", newImage(1))
	s.waitDrained()
	var status struct {
		DID     string
		Hold    struct{ DID, Endpoint string }
		Backlog struct {
			Running bool
			Sinks   []struct{ Sink, State string }
		}
	}
	if err := json.Unmarshal([]byte(run(0, []string{"remote", "status", "--json", s.config})), &status); err != nil {
		t.Fatal(err)
	}
	if status.DID != did || status.Hold.Endpoint == "" || !status.Backlog.Running || len(status.Backlog.Sinks) == 0 || status.Backlog.Sinks[0].Sink != "remote" {
		t.Errorf("status %+v", status)
	}
	s.stop()

	// A start does not replace a key that others know.
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	run(1, []string{"serve", s.config}, key+" is missing: restore it from a backup")
}
