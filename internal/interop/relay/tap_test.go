package relay

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gorilla/websocket"
)

// tap is the network's mirror of repos. It verifies every commit, and fetches a
// repo again if a commit does not match its copy.
type tap struct {
	*testing.T
	hold    *program
	addr    string
	process *process

	mu      sync.Mutex
	emitted map[string]string // CIDs by path, from its events
	fetched int               // records from fetches of the repo instead of commits
	read    int               // bytes of its log that were checked
}

func newTap(p *program) *tap {
	p.Helper()
	t := &tap{T: p.T, hold: p, addr: freeAddr(p.T), emitted: map[string]string{}}
	binary := build(p.T, ".", p.dir, "github.com/bluesky-social/indigo/cmd/tap", "CGO_ENABLED=1")
	t.process = start(p.T, p.env(), binary, "run", "--bind", t.addr,
		"--db-url", "sqlite://"+filepath.Join(p.dir, "tap.db"), "--relay-url", "https://"+hostname,
		"--plc-url", "https://plc.invalid", // does not exist
		"--ident-cache-size", "10", "--cursor-save-interval", "100ms", "--disable-acks")
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of tap:\n%s", grep(t.process.log.String(), `"level":`)) // the log also has its requests
		}
	})
	var channel *websocket.Conn
	eventually(t.T, "tap responds", func() (is bool) {
		var err error
		channel, _, err = websocket.DefaultDialer.Dial("ws://"+t.addr+"/channel", nil)
		return err == nil
	})
	t.Cleanup(func() { channel.Close() })
	go t.follow(channel)
	eventually(t.T, "tap subscribes", func() bool { return strings.Contains(t.process.log.String(), "connected to firehose") })
	return t
}

// follow collects tap's events until the channel is closed.
func (t *tap) follow(channel *websocket.Conn) {
	for {
		var event struct {
			Record *struct {
				Live                          bool
				Action, Collection, Rkey, Cid string
			}
		}
		if err := channel.ReadJSON(&event); err != nil {
			return
		}
		r := event.Record
		if r == nil {
			continue // an identity event
		}
		t.mu.Lock()
		path := r.Collection + "/" + r.Rkey
		if r.Action == "delete" {
			delete(t.emitted, path)
		} else {
			t.emitted[path] = r.Cid
		}
		if !r.Live {
			t.fetched++
		}
		t.mu.Unlock()
	}
}

// copies returns the records that tap has emitted, and the number of fetched ones.
func (t *tap) copies() (records map[string]string, fetched int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.emitted), t.fetched
}

// add makes tap follow the repo; remove makes it forget the repo.
func (t *tap) add() { t.post("/repos/add") }

func (t *tap) remove() {
	t.Helper()
	t.post("/repos/remove")
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.emitted)
}

func (t *tap) post(path string) {
	t.Helper()
	resp, err := http.Post("http://"+t.addr+path, "application/json", strings.NewReader(`{"dids":["`+did+`"]}`))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", path, resp.Status)
	}
}

type tapInfo struct {
	Handle, State, Rev, Error string
	Records                   int
}

func (t *tap) info() (info tapInfo) {
	t.Helper()
	resp, err := http.Get("http://" + t.addr + "/info/" + did)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(body, &info); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return info
}

// synced waits until tap has the hold's head and records, and the lost records.
func (t *tap) synced(lost map[string]string) {
	t.Helper()
	eventually(t.T, "tap has the head", func() bool { return t.info().Rev == t.hold.rev() })
	rev, want := t.hold.rev(), t.hold.records("")
	maps.Copy(want, lost)
	eventually(t.T, "tap has emitted the hold's records", func() bool {
		got, _ := t.copies()
		return maps.Equal(got, want)
	})
	if got, want := t.info(), (tapInfo{hostname, "active", rev, "", len(want)}); got != want {
		t.Errorf("tap: %+v, want %+v", got, want)
	}
}

// followed checks that tap has fetched no more records than since, and has logged only
// warnings about connections.
func (t *tap) followed(since int) {
	t.Helper()
	if _, fetched := t.copies(); fetched != since {
		t.Errorf("tap fetched the repo again: %d records fetched, want %d", fetched, since)
	}
	for line := range strings.Lines(t.warnings()) {
		if !strings.Contains(line, `"msg":"dialing failed"`) && !strings.Contains(line, `"msg":"firehose connection failed"`) {
			t.Errorf("warning of tap: %s", line)
		}
	}
}

// warnings returns the warnings since the last call.
func (t *tap) warnings() string {
	all := t.process.log.String()
	since := all[t.read:]
	t.read = len(all)
	return grep(since, `"level":"WARN"`) + grep(since, `"level":"ERROR"`)
}

func grep(lines, text string) string {
	found := slices.DeleteFunc(slices.Collect(strings.Lines(lines)), func(line string) bool { return !strings.Contains(line, text) })
	return strings.Join(found, "")
}

// tap copies a repo with hundreds of records. Then tap and a relay follow its commits, tap
// without fetching, also after the hold is killed. It is backed up while it runs, goes on, and
// is killed. The backup is restored to another folder: tap and the relay receive a #sync, tap
// fetches the repo, and both continue.
func TestTap(t *testing.T) {
	if runtime.GOOS == "darwin" || runtime.GOOS == "windows" {
		t.Skip("needs SSL_CERT_FILE for the test's certificate: run this on Linux")
	}
	p := newProgram(t)
	relay := newFollower(p)
	p.push("v1")
	p.write(80)
	if n := len(p.records("")); n < 200 {
		t.Fatalf("too few records: %d", n)
	}

	// Copy the repo, then follow it. No commits are written meanwhile: tap reads that a fetch is
	// running before it verifies a commit, and buffers the commit after that, when the buffer of
	// the fetch may have been read already.
	tap := newTap(p)
	tap.add()
	eventually(t, "tap has copied the repo", func() bool { return tap.info().State == "active" })
	tap.synced(nil)
	_, fetched := tap.copies()
	if fetched < 200 {
		t.Errorf("tap has fetched only %d records", fetched)
	}
	tap.warnings()
	p.write(40)
	p.push("v2")
	tap.synced(nil)
	tap.followed(fetched)
	relay.synced()
	if warned := relay.warned.take(); len(warned) > 0 {
		t.Errorf("warnings of the relay: %s", strings.Join(warned, "\n"))
	}

	// Kill the hold during or between commits.
	p.killDuringCommits()
	p.start()
	p.resync()
	p.write(20)
	tap.synced(nil)
	tap.followed(fetched)
	relay.synced()
	relay.followed()

	// A backup from before the last commits and the last image, which gets its record
	// again. tap keeps the lost records: when it fetches, it looks for new and changed
	// records, not for deleted ones.
	p.during(p.next, p.backup)
	p.push("v3")
	p.write(20)
	tap.synced(nil)
	relay.synced()
	lost, _ := tap.copies()
	p.kill()
	p.restore()
	p.start()
	p.layers(3)
	restored := p.records("")
	maps.DeleteFunc(lost, func(path, _ string) bool { return restored[path] != "" })
	if len(lost) == 0 {
		t.Error("the backup lacks no record")
	}
	tap.synced(lost)
	relay.synced()
	relay.followed()
	_, again := tap.copies()
	if again == fetched {
		t.Error("tap has not fetched the repo")
	}
	tap.warnings()
	p.resync()
	p.write(20)
	p.push("v4")
	tap.synced(lost)
	tap.followed(again)
	relay.synced()
	relay.followed()

	// A new copy has the same records as the hold.
	tap.remove()
	tap.add()
	tap.synced(nil)
	p.write(20)
	tap.synced(nil)
}
