package hold

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	indigo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/ipfs/go-cid"
	car "github.com/ipld/go-car"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/internal/paced"
)

// car fetches a CAR and verifies the signature of its commit with the key in
// did.json.
func (h *testHold) car(path string) (*indigo.Commit, *indigo.Repo) {
	h.Helper()
	resp, body := h.Do(h.Request("GET", strings.ReplaceAll(path, "%", h.DID), ""))
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/vnd.ipld.car" {
		h.Fatalf("%s: got %d %s %.200s", path, resp.StatusCode, resp.Header.Get("Content-Type"), body)
	}
	commit, loaded, err := indigo.LoadRepoFromCAR(h.Context(), bytes.NewReader(body))
	if err != nil {
		h.Fatalf("%s: %v", path, err)
	}
	if err := commit.VerifySignature(h.publicKey()); err != nil {
		h.Errorf("%s: %v", path, err)
	}
	return commit, loaded
}

func TestGetRepo(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	h.fill(30, 10)
	commit, loaded := h.car("/xrpc/com.atproto.sync.getRepo?did=%")
	head := h.repo.Head()
	if commit.Data != head.Data || commit.Rev != head.Rev || commit.DID != h.DID {
		t.Errorf("got %+v, head is %+v", commit, head)
	}
	records := 0
	err := loaded.MST.Walk(func([]byte, cid.Cid) error { records++; return nil })
	if err != nil || records != 31 {
		t.Errorf("got %d records, %v", records, err)
	}
	const method = "com.atproto.sync.getRepo"
	h.Want("GET", method+"?did=did:web:other.example.com", "", 400, "RepoNotFound", "Could not find repo for DID: did:web:other.example.com")
	h.Want("GET", method, "", 400, "InvalidRequest", `params: missing required key "did"`)
	h.Want("GET", method+"?did=x", "", 400, "InvalidRequest", "at $.did")
	h.Want("GET", method+"?did=%&since=x", "", 400, "InvalidRequest", "at $.since")
	resp, body := h.Do(h.Request("GET", "/xrpc/"+method+"?did="+h.DID+"&since="+head.Rev, ""))
	if resp.StatusCode != 200 || len(body) != 59 {
		t.Errorf("since the head: got %d and %d bytes, want a header of 59", resp.StatusCode, len(body))
	}
	if answer := h.Want("GET", "com.atproto.sync.getLatestCommit?did=%", "", 200, "", ""); answer["cid"] != head.Commit.String() || answer["rev"] != head.Rev {
		t.Errorf("got %v", answer)
	}
	h.Want("GET", "com.atproto.sync.getLatestCommit?did=did:web:other.example.com", "", 400, "RepoNotFound", "")
}

func TestGetRepoSlots(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	one, loopback := netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("127.0.0.1/32")
	for _, c := range []struct {
		by   netip.Prefix
		want bool
	}{{loopback, true}, {loopback, true}, {loopback, false}, {one, true}, {one, true}} { // half of the slots are for one client
		if got := h.server.exports.Acquire(c.by); got != c.want {
			t.Errorf("slot for %s: %v", c.by, got)
		}
	}
	resp, body := h.Do(h.Request("GET", "/xrpc/com.atproto.sync.getRepo?did="+h.DID, ""))
	if resp.StatusCode != 429 || resp.Header.Get("Retry-After") == "" || resp.Header.Get("Content-Type") != "application/json" {
		t.Errorf("got %d %v %s", resp.StatusCode, resp.Header, body)
	}
	h.server.exports.Release(loopback)
	h.car("/xrpc/com.atproto.sync.getRepo?did=%")
	if n := h.server.exports.InUse(); n != maxExports-1 {
		t.Errorf("%d slots are taken", n)
	}
}

// The connection of a client that stops reading a repo is closed without the
// end of the response, and its slot is free again.
func TestStalledReader(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	web := httptest.NewServer(paced.Handler(h.server, 300*time.Millisecond))
	t.Cleanup(web.Close)
	h.URL = web.URL
	h.fill(12, 900_000) // more than sockets hold
	conn, err := net.Dial("tcp", strings.TrimPrefix(h.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := errors.Join(conn.(*net.TCPConn).SetReadBuffer(64<<10), conn.SetDeadline(time.Now().Add(20*time.Second))); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "GET /xrpc/com.atproto.sync.getRepo?did=%s HTTP/1.1\r\nHost: x\r\n\r\n", h.DID); err != nil {
		t.Fatal(err)
	}
	h.waitForLog("response interrupted")
	answer, _ := io.ReadAll(conn) // with or without an error
	if !bytes.HasPrefix(answer, []byte("HTTP/1.1 200")) || bytes.HasSuffix(answer, []byte("0\r\n\r\n")) {
		t.Errorf("got %d bytes, %.60q … %.60q", len(answer), answer, answer[max(0, len(answer)-20):])
	}
	if h.server.exports.InUse() != 0 {
		t.Error("the slot is still taken")
	}
}

// raw fetches a CAR, which may be a part of a repo.
func (h *testHold) raw(path string) []byte {
	h.Helper()
	resp, body := h.Do(h.Request("GET", "/xrpc/"+strings.ReplaceAll(path, "%", h.DID), ""))
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/vnd.ipld.car" {
		h.Fatalf("%s: got %d %s %.200s", path, resp.StatusCode, resp.Header.Get("Content-Type"), body)
	}
	return body
}

// blocks reads a CAR with go-car.
func (h *testHold) blocks(raw []byte) map[cid.Cid][]byte {
	h.Helper()
	r, err := car.NewCarReader(bytes.NewReader(raw))
	if err != nil {
		h.Fatal(err)
	}
	blocks := map[cid.Cid][]byte{}
	for {
		b, err := r.Next()
		if err != nil {
			return blocks
		}
		blocks[b.Cid()] = b.RawData()
	}
}

func TestGetBlocks(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	h.fill(1, 1)
	head := h.repo.Head()
	record, _, err := h.repo.Get(coll, "k00")
	if err != nil {
		t.Fatal(err)
	}
	const method = "com.atproto.sync.getBlocks?did=%"
	raw := h.raw(method + "&cids=" + record.String() + "&cids=" + head.Commit.String())
	if want := "\x11\xa2\x65roots\x80\x67version\x01"; !strings.HasPrefix(string(raw), want) {
		t.Errorf("got %.30q, want no roots", raw)
	}
	withRoot := append([]byte("\x3a\xa2\x65roots\x81\xd8\x2a\x58\x25\x00"+string(record.Bytes())+"\x67version\x01"), raw[18:]...)
	if got := h.blocks(withRoot); len(got) != 2 || got[record] == nil || got[head.Commit] == nil {
		t.Errorf("got %d blocks", len(got))
	}
	h.fill2() // the old root may be a node of the new tree; the old commit is gone
	const unknown = "bafyreiclp443lavogvhj3d2ob2cxbfuscni2k5jk7bebjzg7khl3esabwq"
	h.Want("GET", method+"&cids="+record.String()+"&cids="+head.Commit.String()+"&cids="+unknown, "", 400, "InvalidRequest",
		"Could not find cids: "+head.Commit.String()+","+unknown)
	h.Want("GET", method+"&cids=zzz", "", 400, "InvalidRequest", "cids")
	h.Want("GET", method, "", 400, "InvalidRequest", `missing required key "cids"`)
}

// Older methods and parameters work for the commits that are kept.
func TestOlderSyncMethods(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	h.fill(40, 10)
	old := h.repo.Head()
	h.fill2()
	h.fill2()
	head := h.repo.Head()
	const unknown = "bafyreiclp443lavogvhj3d2ob2cxbfuscni2k5jk7bebjzg7khl3esabwq"

	whole := h.raw("com.atproto.sync.getRepo?did=%")
	diff := h.raw("com.atproto.sync.getRepo?did=%&since=" + old.Rev)
	if len(diff) >= len(whole) || h.blocks(diff)[head.Commit] == nil || h.blocks(diff)[head.Data] == nil {
		t.Errorf("since %s: got %d bytes of %d", old.Rev, len(diff), len(whole))
	}
	if _, _, err := indigo.LoadCommitFromCAR(t.Context(), bytes.NewReader(diff)); err != nil {
		t.Error(err)
	}
	if got := h.raw("com.atproto.sync.getRepo?did=%&latest=" + head.Commit.String() + "&earliest=" + old.Commit.String()); !bytes.Equal(got, diff) {
		t.Errorf("earliest: got %d bytes, want those %d since its rev", len(got), len(diff))
	}
	for _, query := range []string{"", "&commit=" + head.Commit.String()} {
		if got := h.raw("com.atproto.sync.getCheckout?did=%" + query); !bytes.Equal(got, whole) {
			t.Errorf("getCheckout%s: got %d bytes, want %d", query, len(got), len(whole))
		}
	}
	path := h.Want("GET", "com.atproto.sync.getCommitPath?did=%&earliest="+old.Commit.String(), "", 200, "", "")["commits"].([]any)
	if len(path) != 2 || path[1] != head.Commit.String() {
		t.Errorf("getCommitPath: got %v", path)
	}
	if all := h.Want("GET", "com.atproto.sync.getCommitPath?did=%", "", 200, "", "")["commits"].([]any); len(all) != 43 {
		t.Errorf("getCommitPath: got %d commits, want 43", len(all))
	}
	for query, message := range map[string]string{
		"getRepo?did=%&latest=" + old.Commit.String():                                             "kept as of its head only",
		"getRepo?did=%&earliest=" + unknown:                                                       "commit is not kept: " + unknown,
		"getRepo?did=%&earliest=zzz":                                                              "at $.earliest",
		"getRepo?did=%&since=" + old.Rev + "&earliest=" + old.Commit.String():                     "exclude each other",
		"getCheckout?did=%&commit=" + old.Commit.String():                                         "kept as of its head only",
		"getRecord?did=%&collection=" + coll + "&rkey=k00&commit=" + unknown:                      "kept as of its head only",
		"getCommitPath?did=%&earliest=" + unknown:                                                 "commit is not kept: " + unknown,
		"getCommitPath?did=%&latest=" + unknown:                                                   "commit is not kept: " + unknown,
		"getCommitPath?did=%&earliest=" + head.Commit.String() + "&latest=" + old.Commit.String(): "commit is not kept",
	} {
		h.Want("GET", "com.atproto.sync."+query, "", 400, "InvalidRequest", message)
	}
}

func TestImportRepo(t *testing.T) {
	t.Parallel()
	source, target := newHold(t), loggedIn(t)
	source.fill(120, 10)
	car := source.raw("com.atproto.sync.getRepo?did=%")
	target.fill(3, 100)
	post := func(body []byte, contentType string, status int, name, message string) {
		t.Helper()
		r := target.Request("POST", "/xrpc/com.atproto.repo.importRepo", string(body))
		r.Header.Set("Content-Type", contentType)
		resp, answer := target.Do(r)
		if resp.StatusCode != status || !strings.Contains(string(answer), name) || !strings.Contains(string(answer), message) {
			t.Errorf("got %d %s, want %d %s %q", resp.StatusCode, answer, status, name, message)
		}
	}
	const kind = "application/vnd.ipld.car"
	post(car, "application/json", 400, "InvalidRequest", "Wrong request encoding (Content-Type): application/json")
	post([]byte("nonsense"), kind, 400, "InvalidRequest", "invalid repo archive")
	post(car[:len(car)-5], kind, 400, "InvalidRequest", "invalid repo archive")
	before := target.repo.Head()
	post(car, kind, 200, "", "")
	commit, loaded := target.car("/xrpc/com.atproto.sync.getRepo?did=%") // signed with the target's key
	if commit.Data != source.repo.Head().Data || commit.Rev <= before.Rev {
		t.Errorf("got %+v, want the tree %s", commit, source.repo.Head().Data)
	}
	if err := loaded.MST.Verify(); err != nil {
		t.Error(err)
	}
	events, err := target.repo.Events(before.Seq, 10)
	if err != nil || len(events) != 1 || !bytes.Contains(events[0].Frame[:20], []byte("#sync")) {
		t.Errorf("got %d events, %v, want a #sync", len(events), err)
	}
	target.Token = ""
	post(car, kind, 401, "AuthMissing", "")
}

// fill2 makes one more commit.
func (h *testHold) fill2() {
	h.Helper()
	w := repo.Write{Action: repo.Create, Collection: coll, RKey: fmt.Sprint("x", h.repo.Head().Seq), Record: []byte{0xa0}}
	if _, err := h.repo.Apply(h.Context(), []repo.Write{w}, nil); err != nil {
		h.Fatal(err)
	}
}
