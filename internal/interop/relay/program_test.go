package relay

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atdata"
	indigo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/repo"
)

const did = "did:web:" + hostname

// program is tidings as a process: a registry with an account, on a network.
type program struct {
	*testing.T
	*network
	history
	dir      string
	binary   string
	crane    string
	config   string
	password string
	token    string
	running  *process
}

func newProgram(t *testing.T) *program {
	t.Helper()
	dir := t.TempDir()
	p := &program{
		T: t, network: newNetwork(t, dir), history: newHistory(), dir: dir,
		binary: build(t, "../../..", dir, "github.com/tidings-dev/tidings/cmd/tidings", "CGO_ENABLED=0"),
		crane:  build(t, "../../..", dir, "github.com/google/go-containerregistry/cmd/crane", "CGO_ENABLED=0"),
		config: filepath.Join(dir, "config.yml"),
	}
	write(t, p.config, fmt.Appendf(nil, `version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %[1]s/registry}}
http: {addr: %[2]q, draintimeout: 10s, tls: {certificate: %[3]s, key: %[4]s}}
middleware:
  repository:
    - name: tidings
      options:
        data: %[1]s/data
        public: ["**"]
        hold: {hostname: %[5]s, login: true, reserve: 1MiB}
        announce: {tags: ["*"], collect: 0s, cooldown: 0s, daily_limit: 0, anonymous_pushes: true}
`, dir, p.hold, p.cert, p.key, hostname))
	p.run(p.binary, "hold", "init", p.config)
	p.password = strings.TrimSpace(p.run(p.binary, "hold", "password", p.config))
	p.start()
	return p
}

// build builds a program of a module.
func build(t *testing.T, module, dir, name string, env ...string) string {
	t.Helper()
	binary := filepath.Join(dir, filepath.Base(name))
	cmd := exec.Command("go", "build", "-o", binary, name)
	cmd.Dir = module
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	return binary
}

// run returns the standard output of a command.
func (p *program) run(name string, args ...string) string {
	p.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = p.env()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		p.Fatalf("%s %q: %v\n%s", filepath.Base(name), args, err, &stderr)
	}
	return string(out)
}

// start starts the server and logs in.
func (p *program) start() {
	p.Helper()
	p.token = ""
	p.running = start(p.T, p.env(), p.binary, "serve", p.config)
	running := p.running
	p.Cleanup(func() {
		if p.Failed() {
			p.Logf("log of the registry:\n%s", running.log)
		}
	})
	eventually(p.T, "the registry responds", func() bool {
		_, err := p.call(http.MethodGet, "com.atproto.server.describeServer", nil)
		return err == nil
	})
	var session struct{ AccessJwt string }
	p.decode(p.must(http.MethodPost, "com.atproto.server.createSession", map[string]any{"identifier": did, "password": p.password}), &session)
	p.token = session.AccessJwt
}

// kill sends SIGKILL.
func (p *program) kill() {
	p.running.kill()
	p.client.CloseIdleConnections()
}

// backup writes a backup of the running program.
func (p *program) backup() {
	p.Helper()
	p.run(p.binary, "backup", p.config, filepath.Join(p.dir, "backup"))
}

// restore restores the backup to a new data folder, with a new password.
func (p *program) restore() {
	p.Helper()
	config, err := os.ReadFile(p.config)
	if err != nil {
		p.Fatal(err)
	}
	write(p.T, p.config, bytes.Replace(config, []byte(p.dir+"/data\n"), []byte(p.dir+"/restored\n"), 1))
	p.run(p.binary, "restore", filepath.Join(p.dir, "backup"), p.config)
	p.run(p.binary, "hold", "verify", p.config)
	p.password = strings.TrimSpace(p.run(p.binary, "hold", "password", p.config))
}

// push pushes an image with one small layer and waits for its layer record.
func (p *program) push(tag string) {
	p.Helper()
	layer := filepath.Join(p.dir, tag+".tar")
	write(p.T, layer, []byte(tag)) // not a real tar file
	before, posts := len(p.records("io.atcr.hold.layer/")), len(p.records("app.bsky.feed.post/"))
	p.run(p.crane, "append", "--oci-empty-base", "-f", layer, "-t", hostname+"/oss/app:"+tag)
	eventually(p.T, "layer record of the image", func() bool { return len(p.records("io.atcr.hold.layer/")) > before })
	eventually(p.T, "post of the image", func() bool { return len(p.records("app.bsky.feed.post/")) > posts })
}

// apply writes a commit. It fails while the hold is stopped.
func (p *program) apply(writes []repo.Write) error {
	var list []map[string]any
	for _, w := range writes {
		one := map[string]any{"$type": "com.atproto.repo.applyWrites#" + string(w.Action), "collection": w.Collection, "rkey": w.RKey}
		if w.Record != nil {
			value, err := atdata.UnmarshalCBOR(w.Record)
			if err != nil {
				return err
			}
			one["value"] = value
		}
		list = append(list, one)
	}
	_, err := p.call(http.MethodPost, "com.atproto.repo.applyWrites", map[string]any{"repo": did, "writes": list})
	return err
}

// write writes random commits.
func (p *program) write(commits int) {
	p.Helper()
	for range commits {
		if err := p.apply(p.next()); err != nil {
			p.Fatal(err)
		}
	}
}

// resync continues the history from the existing records.
func (p *program) resync() {
	p.Helper()
	p.have = nil
	for path := range p.records(collection + "/") {
		p.have = append(p.have, strings.TrimPrefix(path, collection+"/"))
	}
	slices.Sort(p.have)
}

// pause is the time between two commits of during: a relay takes 50 events a second from a host
// that it does not trust, and 2,500 an hour.
const pause = 20 * time.Millisecond

// during writes commits while do runs.
func (p *program) during(next func() []repo.Write, do func()) {
	p.Helper()
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				ended <- nil
				return
			case <-time.After(pause):
			}
			if err := p.apply(next()); err != nil {
				ended <- err
				return
			}
		}
	}()
	do()
	close(stop)
	if err := <-ended; err != nil {
		p.Fatal(err)
	}
}

// killDuringCommits kills the program during or between commits.
func (p *program) killDuringCommits() {
	p.Helper()
	acknowledged := make(chan error)
	go func() {
		defer close(acknowledged)
		for {
			err := p.apply(p.next())
			acknowledged <- err
			if err != nil {
				return
			}
		}
	}()
	for range 20 {
		if err := <-acknowledged; err != nil {
			p.Fatal(err)
		}
	}
	p.kill()
	for range acknowledged {
	}
}

// layers waits until there are layer records of so many images, which push has pushed.
func (p *program) layers(images int) {
	p.Helper()
	eventually(p.T, fmt.Sprintf("%d layer records", images), func() bool { return len(p.records("io.atcr.hold.layer/")) == images })
}

func (p *program) rev() string {
	p.Helper()
	var head struct{ Rev string }
	p.decode(p.must(http.MethodGet, "com.atproto.sync.getLatestCommit?did="+did, nil), &head)
	return head.Rev
}

// head returns the commit that getRepo returns.
func (p *program) head() (*indigo.Commit, cid.Cid) {
	p.Helper()
	commit, id, err := indigo.LoadCommitFromCAR(p.Context(), bytes.NewReader(p.must(http.MethodGet, "com.atproto.sync.getRepo?did="+did, nil)))
	if err != nil {
		p.Fatal(err)
	}
	return commit, *id
}

// records returns the records with a path prefix, as CIDs by path.
func (p *program) records(prefix string) map[string]string {
	p.Helper()
	_, export, err := indigo.LoadRepoFromCAR(p.Context(), bytes.NewReader(p.must(http.MethodGet, "com.atproto.sync.getRepo?did="+did, nil)))
	if err != nil {
		p.Fatal(err)
	}
	records := map[string]string{}
	if err := export.MST.Walk(func(path []byte, c cid.Cid) error {
		if bytes.HasPrefix(path, []byte(prefix)) {
			records[string(path)] = c.String()
		}
		return nil
	}); err != nil {
		p.Fatal(err)
	}
	return records
}

func (p *program) must(method, path string, body any) []byte {
	p.Helper()
	answer, err := p.call(method, path, body)
	if err != nil {
		p.Fatal(err)
	}
	return answer
}

// call sends an XRPC request over the network.
func (p *program) call(method, path string, body any) ([]byte, error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequest(method, "https://"+hostname+"/xrpc/"+path, bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if p.token != "" && method == http.MethodPost {
		req.Header.Set("Authorization", "Bearer "+p.token)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, resp.Status, answer)
	}
	return answer, err
}

func (p *program) decode(raw []byte, into any) {
	p.Helper()
	if err := json.Unmarshal(raw, into); err != nil {
		p.Fatalf("%v: %s", err, raw)
	}
}
