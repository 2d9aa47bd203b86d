package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/middleware"
	"github.com/tidings-dev/tidings/middleware/admin"
)

// accountServer is a registry that publishes to an account on a fakePDS.
type accountServer struct {
	*server
	pds   *fakePDS
	debug string
}

func newAccountServer(t *testing.T, identifier string) *accountServer {
	t.Helper()
	p, debug, dir := newFakePDS(t), freeAddr(t), t.TempDir()
	password := filepath.Join(dir, "app-password")
	s := &accountServer{newServer(t, settings{account: p.account(identifier, password)}), p, debug}
	s.edit("log: {level: error", "log: {level: warn")
	s.edit("  draintimeout: 10s", fmt.Sprintf("  draintimeout: 10s\n  debug: {addr: %q, prometheus: {enabled: true}}", debug))
	write(t, password, p.password)
	return s
}

// badServices are PDSs that do not work, and what the registry says of them.
var badServices = map[string]struct {
	change func(p *fakePDS)
	says   string
}{
	"HTML": {func(p *fakePDS) {
		p.fault = func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>Welcome") }
	}, "not application/json: is 127.0.0.1:"},
	"nothing there": {func(p *fakePDS) { p.fault = http.NotFound }, "status 404 Not Found"},
	"redirect inward": {func(p *fakePDS) {
		p.fault = http.RedirectHandler(p.inside.URL+"/xrpc/x", http.StatusTemporaryRedirect).ServeHTTP
	}, "redirects to another host"},
	"garbage": {func(p *fakePDS) {
		p.fault = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, "{\"did\": [\x00\xff")
		}
	}, "invalid answer"},
	"endless": {func(p *fakePDS) {
		p.fault = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			for chunk := bytes.Repeat([]byte(" "), 1<<20); ; {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}
	}, "the answer is larger than 8 MiB"},
	"silent": {func(p *fakePDS) {
		p.fault = func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}
	}, "context deadline exceeded"},
	"document of this machine":      {func(p *fakePDS) { p.endpoint = p.inside.URL }, "set service to the PDS of the account"},
	"document of a private network": {func(p *fakePDS) { p.endpoint = "http://10.0.0.1" }, "names http://10.0.0.1, and service is http://127.0.0.1:"},
	"another PDS":                   {func(p *fakePDS) { p.endpoint = "https://pds.example.com" }, "names https://pds.example.com, and service is http://127.0.0.1:"},
}

// As long as the DID of the account is not known, the start fails with the reason.
func TestAccountFirstStart(t *testing.T) {
	t.Parallel()
	for name, bad := range badServices {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newAccountServer(t, fakeHandle)
			s.pds.set(bad.change)
			out, err := s.command("serve", s.config).CombinedOutput()
			if err == nil {
				t.Error("the registry started")
			}
			for _, want := range []string{"options.account: the first start has to find the account, and could not: ", bad.says} {
				if !strings.Contains(string(out), want) {
					t.Errorf("missing %q:\n%s", want, out)
				}
			}
			s.checkSecrets(map[string]string{"the output": string(out)})
			if n := s.pds.visits.Load(); n > 0 {
				t.Errorf("%d requests to a server inside of the network", n)
			}
		})
	}
}

// After the first start the registry serves whatever the PDS does: pushes stay pending, and
// are published once the PDS works.
func TestAccountLaterStart(t *testing.T) {
	t.Parallel()
	for name, bad := range badServices {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newAccountServer(t, fakeHandle)
			s.start()
			s.push(t, "oss/app", "v1", newImage(2))
			s.waitDrained()
			s.kill()
			s.pds.set(bad.change)
			s.pushWhileBroken(bad.says)
			s.pds.set(func(p *fakePDS) { p.fault, p.endpoint = nil, p.URL })
			s.pds.CloseClientConnections() // calls that wait for an answer
			s.waitPublished(2)
		})
	}
}

// After the first start the registry does not wait for a PDS that does not answer.
func TestAccountSilentStart(t *testing.T) {
	t.Parallel()
	s := newAccountServer(t, fakeHandle)
	s.start()
	s.kill()
	s.pds.set(badServices["silent"].change)
	begun := time.Now()
	s.start()
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("the start took %s", took)
	}
}

// A wrong password pauses the sinks, and is tried once.
func TestAccountWrongPassword(t *testing.T) {
	t.Parallel()
	s := newAccountServer(t, fakeDID)
	s.pds.set(func(p *fakePDS) { p.password = "secret-other" })
	s.pushWhileBroken("createSession: status 401 AuthenticationRequired: Invalid identifier or password: the service refused the password in")
	if n := s.pds.loginCount(); n != 1 {
		t.Errorf("%d logins, want 1", n)
	}
	const reason = "the account cannot be written: its service refuses the password"
	if health := s.fetch("/tidings/api/v1/health", s.token()...); !strings.Contains(health, reason) || !strings.Contains(health, `"backlog":{"writes":`) || strings.Contains(health, `"ends"`) {
		t.Errorf("health lacks %q, or says when the backlog ends: %s", reason, health)
	}
	if err := admin.NewClient(filepath.Join(s.dir, "tidings")).Call(t.Context(), "POST", "/v1/backfill", nil, nil); err != nil {
		t.Error(err)
	}
	s.until(t, "the backfill says why it waits", func() bool {
		out, code := s.run("backfill", "--status", s.config)
		return code == 0 && strings.Contains(out, "waiting: stores not compared yet: ") && strings.Contains(out, "the service refused the password")
	})
	s.kill()
	s.pds.set(func(p *fakePDS) { p.password = "secret-app-password-1" })
	write(t, s.passwordFile(), s.pds.password+"\n") // the file has changed
	s.start()
	s.waitPublished(1)
}

// A service that repeats in its errors what it was sent does not bring the password or a
// token into the log.
func TestAccountEcho(t *testing.T) {
	t.Parallel()
	for method, says := range map[string]string{"createSession": "createSession: status 400 InvalidRequest", "applyWrites": "applyWrites: status 400 InvalidRequest"} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			s := newAccountServer(t, fakeDID)
			s.pds.set(func(p *fakePDS) { p.fault = p.echo(method) })
			s.pushWhileBroken(says)
		})
	}
}

// With 300 points an hour posts go first while layers wait, the PDS never has to refuse a
// call, and the backlog ends as soon as the points allow it, when health and metrics said.
func TestAccountBacklog(t *testing.T) {
	t.Parallel()
	const images, layers, hour = 6, 20, 300 // 120 layers and 6 posts cost 378 points
	s := newAccountServer(t, fakeDID)
	s.edit("plc: ", fmt.Sprintf("budget: {hour: %d, day: off}, plc: ", hour))
	ahead := time.Duration(0)
	s.setClock(0)
	s.pds.set(func(p *fakePDS) {
		p.hourLimit, p.now = hour, func() time.Time { return time.Now().Add(ahead) }
	})
	pass := func(d time.Duration) {
		s.pds.set(func(*fakePDS) { ahead += d })
		s.setClock(ahead)
	}
	s.start()
	for i := range images {
		s.push(t, "oss/app", fmt.Sprint("build", i), newImage(layers))
	}
	eventually(t, "a sink is paused and all images are announced", 20*time.Second, func() bool { return s.paused() && s.pds.count(lexicon.NSIDPost) == images })
	if n := s.pds.count(lexicon.NSIDLayer); n > (hour-hour/10)/3 {
		t.Errorf("%d layers are written, and a tenth of the points is for posts", n)
	}
	health := s.accountHealth()
	seconds, err := strconv.ParseFloat(metric(t, s.debug, "tidings_account_backlog_seconds"), 64)
	if err != nil {
		t.Fatal(err)
	}
	metricEnds := time.Now().Add(time.Duration(seconds * float64(time.Second)))
	if b := health.Backlog; health.Budget.Hour.Left > hour/10 || b.Writes == 0 || time.Until(b.Ends) < 30*time.Minute || metricEnds.Sub(b.Ends).Abs() > time.Minute {
		t.Errorf("health says %+v, the metric that the backlog ends at %s", health, metricEnds)
	}

	pass(55 * time.Minute)
	if n := s.pds.count(lexicon.NSIDLayer); n == images*layers {
		t.Error("all layers are written within the hour")
	}
	pass(time.Until(health.Backlog.Ends.Add(-ahead)) + time.Second)
	s.waitDrained()
	if layersNow, posts := s.pds.count(lexicon.NSIDLayer), s.pds.count(lexicon.NSIDPost); layersNow != images*layers || posts != images {
		t.Errorf("%d layer records and %d posts, want %d and %d\n%s", layersNow, posts, images*layers, images, s.log)
	}
	s.pds.set(func(p *fakePDS) {
		if p.limited > 0 {
			t.Errorf("the PDS has refused %d calls", p.limited)
		}
	})
}

// accountHealth is what health says of the account, with the token.
func (s *accountServer) accountHealth() middleware.AccountHealth {
	s.t.Helper()
	var health middleware.Health
	if err := json.Unmarshal([]byte(s.fetch("/tidings/api/v1/health", s.token()...)), &health); err != nil {
		s.t.Fatal(err)
	}
	return *health.Account
}

// echo refuses a method with an error that repeats the request.
func (p *fakePDS) echo(method string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !strings.HasSuffix(r.URL.Path, method) {
			p.serve(w, r)
			return
		}
		body, _ := io.ReadAll(r.Body)
		sendError(w, 400, "InvalidRequest", r.Header.Get("Authorization")+" "+string(body))
	}
}

// However often the registry is started, it logs in no more often than is allowed, even if
// the service ends each session at once.
func TestAccountCrashLoop(t *testing.T) {
	t.Parallel()
	const starts, allowed = 50, 10
	s := newAccountServer(t, fakeHandle)
	s.pds.set(func(p *fakePDS) { p.expired = true })
	begun := time.Now()
	for i := range starts {
		s.start()
		if i == 0 {
			s.push(t, "oss/app", "v1", newImage(1))
		}
		eventually(t, "a sink is paused", 20*time.Second, s.paused)
		s.kill()
	}
	t.Logf("%d starts in %s", starts, time.Since(begun).Round(time.Second))
	// A login whose process is killed before it has sent the request counts as well.
	if n := s.pds.loginCount(); n > allowed || n < allowed/2 {
		t.Errorf("%d logins in %d starts, want %d at most", n, starts, allowed)
	}
}

// pushWhileBroken starts the server and pushes an image, which stays pending. The log has
// the reason, and the API and the metrics no secret.
func (s *accountServer) pushWhileBroken(says string) {
	s.t.Helper()
	before := s.pds.count(lexicon.NSIDPost)
	if s.cmd == nil {
		s.start()
	}
	s.push(s.t, "oss/app", "v2", newImage(2))
	eventually(s.t, "the log says "+says, 20*time.Second, func() bool { return strings.Contains(s.log.String(), says) })
	eventually(s.t, "the push is counted", 20*time.Second, func() bool {
		res, _, err := s.do("GET", "/tidings/api/v1/repositories/oss/app", "", nil)
		return err == nil && res.StatusCode == http.StatusOK
	})
	s.checkSecrets(s.exposed())
	if n := s.pds.count(lexicon.NSIDPost); n != before {
		s.t.Errorf("%d posts were written", n-before)
	}
	if n := s.pds.visits.Load(); n > 0 {
		s.t.Errorf("%d requests to a server inside of the network", n)
	}
}

// waitPublished waits until nothing is pending, and checks that so many images were
// published, each once and without a dead letter.
func (s *accountServer) waitPublished(images int) {
	s.t.Helper()
	s.waitDrained()
	if layers, posts := s.pds.count(lexicon.NSIDLayer), s.pds.count(lexicon.NSIDPost); layers != 2*images || posts != images {
		s.t.Errorf("%d layer records and %d posts, want %d and %d\n%s", layers, posts, 2*images, images, s.log)
	}
	if got := metric(s.t, s.debug, `tidings_dead_letters_total{sink="records"}`); got != "" && got != "0" {
		s.t.Errorf("%s dead letters", got)
	}
	s.checkSecrets(s.exposed())
}

func (s *accountServer) paused() bool {
	var health struct {
		Account struct{ Status string }
	}
	s.json(s.t, "/tidings/api/v1/health", &health)
	return health.Account.Status == "paused"
}

func (s *accountServer) passwordFile() string {
	content, err := os.ReadFile(s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(content), `password_file: "`)
	file, _, _ := strings.Cut(after, `"`)
	return file
}

// exposed is everything that the running registry shows: its log, the API with and
// without the token, the metrics, the debug server, the commands that ask it through its admin
// socket, and its files but those for secrets.
func (s *accountServer) exposed() map[string]string {
	s.t.Helper()
	shown := map[string]string{"log": s.log.String()}
	for _, path := range []string{"health", "pushes", "repositories", "repositories/oss/app"} {
		for _, header := range [][]string{nil, s.token()} {
			shown[fmt.Sprint(path, len(header))] = s.fetch("/tidings/api/v1/"+path, header...)
		}
	}
	for _, path := range []string{"/metrics", "/debug/vars", "/debug/pprof/cmdline"} {
		shown[path] = s.fetch("http://" + s.debug + path)
	}
	for _, command := range []string{"status --json", "account status", "dead list"} {
		out, code := s.run(append(strings.Fields(command), s.config)...)
		if code != 0 && !strings.HasPrefix(out, "{") { // status exits with 1 for a degraded registry
			s.t.Errorf("tidings %s: exit code %d\n%s", command, code, out)
		}
		shown[command] = out
	}
	err := filepath.WalkDir(filepath.Join(s.dir, "tidings"), func(path string, e fs.DirEntry, err error) error {
		// While account.json is written, and after a kill at that moment, its content is in a file next to it.
		if err == nil && (!e.Type().IsRegular() || e.Name() == "account.json" || strings.HasPrefix(e.Name(), ".secret-")) {
			return nil
		}
		var content []byte
		if err == nil {
			content, err = os.ReadFile(path)
		}
		if errors.Is(err, fs.ErrNotExist) { // Deleted since the folder was listed.
			return nil
		}
		shown[path] = string(content)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return shown
}

func (s *accountServer) fetch(url string, header ...string) string {
	s.t.Helper()
	res, body, err := s.do("GET", url, "", nil, header...)
	if err != nil || res.StatusCode != http.StatusOK {
		s.t.Fatalf("GET %s: %v %v", url, res, err)
	}
	return string(body)
}

func (s *accountServer) checkSecrets(shown map[string]string) {
	s.t.Helper()
	for name, text := range shown {
		if _, after, found := strings.Cut(text, fakeSecrets); found {
			s.t.Errorf("a secret is in %s: secret-%.30s", name, after)
		}
	}
}
