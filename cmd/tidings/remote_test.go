package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/internal/faultproxy"
)

// team owns the images below oss/team/ of the registry of a remotePair.
const team = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"

// remotePair is a registry that reports to a hold, and a proxy in front of the hold. They
// have the same clock, which passPauses sets.
type remotePair struct {
	registry, hold *server
	proxy          *faultproxy.Proxy
	observe        func(faultproxy.Call) // calls that have reached the hold; nil: none
	operation      atomic.Value          // string that the operation of each call is changed to; "": none
}

// newRemotePair configures both. The hold is at an address of its own, behind the proxy,
// and accepts the registry by an option: registries or owners. More options of the hold
// begin with a new line.
func newRemotePair(t *testing.T, accepted, options string) *remotePair {
	t.Helper()
	p := &remotePair{hold: newServer(t, settings{options: defaultOptions + options})}
	p.registry = newServer(t, settings{remote: unescaped(p.hold.did)})
	p.registry.reconfigure("reserve: 1MiB", fmt.Sprintf("reserve: 1MiB\n        owners: [{repositories: [\"oss/team/**\"], owner: %q}]", team))
	p.registry.setClock(0)
	p.hold.env = p.registry.env
	inner := freeAddr(t)
	p.hold.reconfigure(fmt.Sprintf("addr: %q", p.hold.host), fmt.Sprintf("addr: %q", inner))
	sender := unescaped(p.registry.did)
	p.hold.reconfigure(", reserve: 1MiB}", fmt.Sprintf(", reserve: 1MiB, %s: [%q]}", accepted, sender))
	p.hold.reconfigure(`public: ["oss/**"]`, fmt.Sprintf(`public: ["%s/oss/**", "%s/oss/**"]`, sender, team))
	var err error
	if p.proxy, err = faultproxy.New("http://"+inner, func(c faultproxy.Call) {
		if p.observe != nil {
			p.observe(c)
		}
	}); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", p.hold.host)
	if err != nil {
		t.Fatal(err)
	}
	p.operation.Store("")
	front := &http.Server{Handler: http.HandlerFunc(p.serve)}
	go front.Serve(listener)
	t.Cleanup(func() {
		p.proxy.End()
		front.Close()
	})
	return p
}

// serve is what is in front of the hold.
func (p *remotePair) serve(w http.ResponseWriter, r *http.Request) {
	if operation := p.operation.Load().(string); operation != "" && strings.HasSuffix(r.URL.Path, notifyManifest) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		r.Body = io.NopCloser(bytes.NewReader(bytes.Replace(body, []byte(`"operation":"push"`), fmt.Appendf(nil, `"operation":%q`, operation), 1)))
	}
	p.proxy.ServeHTTP(w, r)
}

// passPauses sets the clock of both ahead to the end of each pause of the registry, until
// the returned function is called: after a failure no call is made for 10 seconds and more.
func (p *remotePair) passPauses(t *testing.T) (stop func()) {
	file, ahead := filepath.Join(p.registry.dir, "clock"), time.Duration(0)
	ends, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-ends:
				return
			case <-time.After(20 * time.Millisecond):
			}
			until := p.pausedUntil()
			wait := time.Until(until) - ahead
			if until.IsZero() || wait <= 0 {
				continue
			}
			ahead += wait + time.Millisecond
			if err := writeClock(file, ahead); err != nil {
				t.Error(err)
			}
		}
	}()
	return func() {
		close(ends)
		<-ended
	}
}

// pausedUntil is when the registry calls the hold again; zero if it calls it, or is not
// running.
func (p *remotePair) pausedUntil() (until time.Time) {
	_, body, err := p.registry.do("GET", "/tidings/api/v1/health", "", nil)
	var health struct {
		Sinks []struct {
			Sink  string
			Until time.Time
		}
	}
	if err != nil || json.Unmarshal(body, &health) != nil {
		return until
	}
	for _, sink := range health.Sinks {
		if sink.Sink == "remote" && sink.Until.After(until) {
			until = sink.Until
		}
	}
	return until
}

// remotePush is a push in the API.
type remotePush struct {
	ID, Repository, Digest, State, Reason string
	Tags                                  []string
	Layers                                int
	LayersRecorded                        *int
	Remote                                *lexicon.NotifyManifestOutput
}

// image is what was pushed: repository, tag and digest.
func (p *remotePush) image() string {
	return fmt.Sprint(p.Repository, ":", strings.Join(p.Tags, " "), "@", p.Digest)
}

func (s *server) remotePushes() []remotePush {
	s.t.Helper()
	var answer struct{ Pushes []remotePush }
	s.json(s.t, "/tidings/api/v1/pushes?limit=1000", &answer, s.token()...)
	if len(answer.Pushes) == 1000 {
		s.t.Error("the API does not list all pushes: too many rounds")
	}
	return answer.Pushes
}

// The hold refuses a push with each of the errors that the method has: whoever pushes sees
// nothing of it, the push is a dead letter with the reason, and the hold has recorded and
// counted nothing. Once the cause is mended, a retry reports the push once, although both
// are killed meanwhile.
func TestRemoteRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, accepted, options string
		repository, owner       string // of the push
		says                    string
		old, mended             string // in the configuration of the hold
	}{
		{"InvalidOperation", "registries", "", "oss/app", "", "InvalidOperation: ", "", ""},
		{"UserMismatch", "owners", "", "oss/team/app", team, "UserMismatch: ", ", owners: [", ", registries: ["},
		{"QuotaExceeded", "registries", "\nquota: {tiers: {small: {limit: 1B}}, default: small}", "oss/app", "", "QuotaExceeded: quota exceeded: did:web:localhost%3A", "limit: 1B", "limit: 1GiB"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newRemotePair(t, c.accepted, c.options)
			p.hold.startHold()
			p.registry.start()
			if c.name == "InvalidOperation" {
				p.operation.Store("copy")
			}
			m := newImage(2)
			p.registry.push(t, c.repository, "v1", m)
			p.registry.waitDrained()
			letter := p.checkRefused(t, c.repository, c.says, 1)
			defer p.passPauses(t)()
			p.retry(letter)
			p.waitReported(t)
			p.checkRefused(t, c.repository, c.says, 2)
			if got := p.hold.remotePushes(); len(got) > 0 {
				t.Errorf("the hold lists %+v", got)
			}
			if got := p.hold.records(t, p.hold.did, layerCollection); len(got) > 0 {
				t.Errorf("the hold has records: %v", got)
			}

			p.hold.kill()
			p.operation.Store("")
			if c.old != "" {
				p.hold.reconfigure(c.old, c.mended)
			}
			p.retry(letter)
			p.registry.kill()
			p.hold.startHold()
			p.registry.start()
			p.waitReported(t)
			p.checkDelivered(t, ownerOf(p.registry, c.repository), m)
		})
	}
}

// waitReported waits until nothing is to be reported, and the health shows no pause.
func (p *remotePair) waitReported(t *testing.T) {
	t.Helper()
	p.registry.waitDrained()
	p.registry.until(t, "the registry is not paused", func() bool { return p.pausedUntil().IsZero() })
}

func (p *remotePair) retry(letter string) {
	p.registry.t.Helper()
	if out, code := p.registry.run("dead", "retry", p.registry.config, letter); code != 0 {
		p.registry.t.Errorf("dead retry: exit code %d\n%s", code, out)
	}
}

// checkDelivered checks that the only push, of an image of the owner, has reached the hold
// once, and that there is no dead letter any more.
func (p *remotePair) checkDelivered(t *testing.T, owner string, m image) {
	t.Helper()
	pushes := p.registry.remotePushes()
	if len(pushes) != 1 {
		t.Fatalf("pushes %+v", pushes)
	}
	checkAnswer(t, &pushes[0])
	if n := pushes[0].Remote.LayersCreated; n == nil || *n != 2 {
		t.Errorf("answer %+v", pushes[0].Remote)
	}
	if out, code := p.registry.run("dead", "list", p.registry.config); code != 0 || out != noLetters {
		t.Errorf("dead list: exit code %d\n%s", code, out)
	}
	if out, code := p.registry.run("status", p.registry.config); code != 0 {
		t.Errorf("status: exit code %d\n%s", code, out)
	}
	atHold := p.hold.remotePushes()
	if want := owner + "/" + pushes[0].image(); len(atHold) != 1 || atHold[0].image() != want {
		t.Errorf("the hold lists %+v, want %s", atHold, want)
	}
	if counts := p.hold.repositories(p.hold.token()...)[owner+"/"+pushes[0].Repository]; counts.Pushes != 1 {
		t.Errorf("the hold has counted %+v", counts)
	}
	layers := map[string]int64{}
	for _, blob := range m.blobs[1:] {
		layers[digest.FromBytes(blob).String()] = int64(len(blob))
	}
	p.hold.checkUnique(t, layerCollection, len(layers), func(r record) string { return r.Value["digest"].(string) })
	p.hold.checkQuota(t, owner, layers)
}

// checkRefused checks what API and commands show of the only push, which the hold has
// refused so often.
func (p *remotePair) checkRefused(t *testing.T, repository, says string, attempts int) (letter string) {
	t.Helper()
	s := p.registry
	pushes := s.remotePushes()
	if len(pushes) != 1 || pushes[0].State != "failed" || pushes[0].Remote != nil || pushes[0].LayersRecorded != nil || !strings.Contains(pushes[0].Reason, says) {
		t.Errorf("pushes %+v", pushes)
	}
	var health struct {
		Status string
		Sinks  []struct {
			Sink, State string
			DeadLetters int
		}
		Remote struct{ Status string }
	}
	s.json(t, "/tidings/api/v1/health", &health, s.token()...)
	if len(health.Sinks) == 0 || health.Sinks[0].Sink != "remote" || health.Sinks[0].DeadLetters != 1 || health.Sinks[0].State != "ok" || health.Remote.Status != "ok" {
		t.Errorf("health %+v", health)
	}
	if out, code := s.run("status", s.config); code != 1 || !strings.Contains(out, "sink remote (pushes) has given up events; see `tidings dead list`") || !strings.Contains(out, "reports pushes to the hold "+unescaped(p.hold.did)) {
		t.Errorf("status: exit code %d\n%s", code, out)
	}
	out, code := s.run("dead", "list", s.config)
	letter, _, _ = strings.Cut(out, " ")
	if code != 0 || strings.Count(out, "\n") != 1 || !strings.HasPrefix(letter, "remote/") || !strings.Contains(out, "push "+repository+":v1@sha256:") || !strings.Contains(out, says) {
		t.Errorf("dead list: exit code %d\n%s", code, out)
	}
	if out, code := s.run("dead", "show", s.config, letter); code != 0 || !strings.Contains(out, fmt.Sprintf(`"attempts": %d`, attempts)) || !strings.Contains(out, `"event": {`) {
		t.Errorf("dead show: exit code %d\n%s", code, out)
	}
	return letter
}

// The commands of the sender, its DID document, and its key.
func TestRemoteCommands(t *testing.T) {
	t.Parallel()
	p := newRemotePair(t, "registries", "")
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
