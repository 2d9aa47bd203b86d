package relay

import (
	"encoding/json"
	"fmt"
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

	"github.com/tidings-dev/tidings/atproto/repo"
)

// tap is the network's own mirror of repositories. It verifies every commit,
// and fetches a repository again when one does not follow on what it knows.
type tap struct {
	*testing.T
	hold    *program
	addr    string
	process *process

	mu      sync.Mutex
	emitted map[string]string // CIDs by path, as its own followers know them
	fetched int               // records that came of a fetch of the repository, not of a commit
	read    int               // of its log
}

func newTap(p *program) *tap {
	p.Helper()
	t := &tap{T: p.T, hold: p, addr: freeAddr(p.T), emitted: map[string]string{}}
	binary := build(p.T, ".", p.dir, "github.com/bluesky-social/indigo/cmd/tap", "CGO_ENABLED=1")
	t.process = start(p.T, p.env(), binary, "run", "--bind", t.addr,
		"--db-url", "sqlite://"+filepath.Join(p.dir, "tap.db"), "--relay-url", "https://"+hostname,
		"--plc-url", "https://plc.invalid", // there is none
		"--ident-cache-size", "10", "--cursor-save-interval", "100ms", "--disable-acks")
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("tap says:\n%s", grep(t.process.log.String(), `"level":`)) // its requests are in there too
		}
	})
	var channel *websocket.Conn
	eventually(t.T, "tap answers", func() (is bool) {
		var err error
		channel, _, err = websocket.DefaultDialer.Dial("ws://"+t.addr+"/channel", nil)
		return err == nil
	})
	t.Cleanup(func() { channel.Close() })
	go t.follow(channel)
	eventually(t.T, "tap listens", func() bool { return strings.Contains(t.process.log.String(), "connected to firehose") })
	return t
}

// follow takes what tap emits, until the channel ends.
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
			continue // of an identity
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

// copies are the records as tap has emitted them, and how many of them it had
// to fetch.
func (t *tap) copies() (records map[string]string, fetched int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.emitted), t.fetched
}

// add has tap begin with the repository, remove has it forget.
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

// agrees waits until tap is at the hold's head, and has each record as the hold
// has it, beside those that are lost.
func (t *tap) agrees(lost map[string]string) {
	t.Helper()
	eventually(t.T, "tap is at the head", func() bool { return t.info().Rev == t.hold.rev() })
	rev, want := t.hold.rev(), t.hold.records("")
	maps.Copy(want, lost)
	eventually(t.T, "tap has emitted what the hold has", func() bool {
		got, _ := t.copies()
		return maps.Equal(got, want)
	})
	if got, want := t.info(), (tapInfo{hostname, "active", rev, "", len(want)}); got != want {
		t.Errorf("tap says %+v, want %+v", got, want)
	}
}

// followed makes sure that all tap knows came of commits since it had fetched
// so many records, and that it has complained of nothing but of a connection.
func (t *tap) followed(since int) {
	t.Helper()
	if _, fetched := t.copies(); fetched != since {
		t.Errorf("tap fetched the repository again: %d records that way, want %d", fetched, since)
	}
	for line := range strings.Lines(t.complaints()) {
		if !strings.Contains(line, `"msg":"dialing failed"`) && !strings.Contains(line, `"msg":"firehose connection failed"`) {
			t.Errorf("tap complains: %s", line)
		}
	}
}

// complaints are what tap has warned of since the last call.
func (t *tap) complaints() string {
	all := t.process.log.String()
	since := all[t.read:]
	t.read = len(all)
	return grep(since, `"level":"WARN"`) + grep(since, `"level":"ERROR"`)
}

func grep(lines, text string) string {
	found := slices.DeleteFunc(slices.Collect(strings.Lines(lines)), func(line string) bool { return !strings.Contains(line, text) })
	return strings.Join(found, "")
}

// tap copies a repository with hundreds of records while commits go on, and
// follows it from there by its commits alone, also through kill -9. When the
// hold is set back to an old backup, tap is told, fetches, and follows on.
func TestTap(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "darwin" || runtime.GOOS == "windows" {
		t.Skip("programs trust the test's certificate where SSL_CERT_FILE says so: run this on Linux")
	}
	p := newProgram(t)
	p.push("v1")
	p.write(80)
	if n := len(p.records("")); n < 200 {
		t.Fatalf("%d records are too few", n)
	}

	// From a copy to what is new.
	tap := newTap(p)
	enough, wrote := make(chan struct{}), make(chan error)
	go func() {
		defer close(wrote)
		for n := 0; ; n++ {
			select {
			case <-enough:
				return
			default:
			}
			// No deletes: tap may fetch more than once, and then keeps what is gone.
			if err := p.apply([]repo.Write{note(repo.Create, fmt.Sprintf("meanwhile%d", n), n)}); err != nil {
				wrote <- err
				return
			}
		}
	}()
	tap.add()
	eventually(t, "tap has a copy", func() bool { return tap.info().State == "active" })
	close(enough)
	if err := <-wrote; err != nil {
		t.Fatal(err)
	}
	tap.agrees(nil)
	_, fetched := tap.copies()
	if fetched < 200 {
		t.Errorf("tap has fetched %d records", fetched)
	}
	tap.complaints()
	p.write(40)
	p.push("v2")
	tap.agrees(nil)
	tap.followed(fetched)

	// kill -9 between commits, or in one.
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
			t.Fatal(err)
		}
	}
	p.kill()
	for range acknowledged {
	}
	p.backup()
	p.start()
	p.look()
	p.write(20)
	tap.agrees(nil)
	tap.followed(fetched)

	// A backup from before the last twenty commits. tap keeps what is lost with
	// them: when it fetches, it looks for what is new or other, not for what is
	// gone.
	lost, _ := tap.copies()
	p.kill()
	p.restore()
	p.start()
	restored := p.records("")
	maps.DeleteFunc(lost, func(path, _ string) bool { return restored[path] != "" })
	if len(lost) == 0 {
		t.Error("the backup has lost no record")
	}
	tap.agrees(lost)
	_, again := tap.copies()
	if again == fetched {
		t.Error("tap has fetched nothing")
	}
	tap.complaints()
	p.look()
	p.write(20)
	p.push("v3")
	tap.agrees(lost)
	tap.followed(again)

	// Who has it fetch all of it again has what the hold has.
	tap.remove()
	tap.add()
	tap.agrees(nil)
	p.write(20)
	tap.agrees(nil)
}
