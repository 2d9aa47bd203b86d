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

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	indigo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/internal/paced"
)

// car fetches a CAR, and checks its commit's signature against did.json.
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

// publicKey is what did.json says it is.
func (h *testHold) publicKey() atcrypto.PublicKey {
	h.Helper()
	doc := h.didDoc()
	key := doc["verificationMethod"].([]any)[0].(map[string]any)
	if key["id"] != h.DID+"#atproto" || key["type"] != "Multikey" || key["controller"] != h.DID {
		h.Errorf("got %v", key)
	}
	public, err := atcrypto.ParsePublicMultibase(key["publicKeyMultibase"].(string))
	if err != nil {
		h.Fatal(err)
	}
	return public
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

func TestGetRepoIsLimited(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	one, loopback := netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("127.0.0.1/32")
	for _, c := range []struct {
		by   netip.Prefix
		want bool
	}{{loopback, true}, {loopback, true}, {loopback, false}, {one, true}, {one, true}} { // half of them are for one client
		if got := h.server.exports.Take(c.by); got != c.want {
			t.Errorf("a place for %s: %v", c.by, got)
		}
	}
	resp, body := h.Do(h.Request("GET", "/xrpc/com.atproto.sync.getRepo?did="+h.DID, ""))
	if resp.StatusCode != 429 || resp.Header.Get("Retry-After") == "" || resp.Header.Get("Content-Type") != "application/json" {
		t.Errorf("got %d %v %s", resp.StatusCode, resp.Header, body)
	}
	h.server.exports.Give(loopback)
	h.car("/xrpc/com.atproto.sync.getRepo?did=%")
	if n := h.server.exports.Taken(); n != maxExports-1 {
		t.Errorf("%d are taken", n)
	}
}

// Who stops reading a repository is cut off, and knows it: the answer breaks
// off. The place is free then.
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
	h.until("response interrupted")
	answer, _ := io.ReadAll(conn) // ends with an error or without
	if !bytes.HasPrefix(answer, []byte("HTTP/1.1 200")) || bytes.HasSuffix(answer, []byte("0\r\n\r\n")) {
		t.Errorf("got %d bytes, %.60q … %.60q", len(answer), answer, answer[max(0, len(answer)-20):])
	}
	if h.server.exports.Taken() != 0 {
		t.Error("it keeps its place")
	}
}

func TestSyncGetRecordProves(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	h.fill(60, 10)
	for i := range 60 {
		rkey := fmt.Sprintf("k%02d", i)
		want, record, err := h.repo.Get(coll, rkey)
		if err != nil {
			t.Fatal(err)
		}
		_, proof := h.car("/xrpc/com.atproto.sync.getRecord?did=%&collection=" + coll + "&rkey=" + rkey)
		got, found, err := proof.GetRecordBytes(t.Context(), syntax.NSID(coll), syntax.RecordKey(rkey))
		if err != nil || *found != want || !bytes.Equal(got, record) {
			t.Errorf("%s: got %v, %v, want %s", rkey, found, err, want)
		}
	}
	for _, absent := range []string{"a", "k005", "k30x", "zzz"} {
		commit, proof := h.car("/xrpc/com.atproto.sync.getRecord?did=%&collection=" + coll + "&rkey=" + absent)
		found, err := proof.MST.Get([]byte(coll + "/" + absent))
		if err != nil || found != nil || commit.Data != h.repo.Head().Data {
			t.Errorf("%s: got %v, %v, want a proof of absence", absent, found, err)
		}
	}
	h.Want("GET", "com.atproto.sync.getRecord?did=did:web:other.example.com&collection="+coll+"&rkey=k", "", 400, "RepoNotFound", "")
}

// A proof that a commit overtakes is made anew.
func TestSyncGetRecordWhileOthersWrite(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	h.fill(10, 10)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 100 {
			w := repo.Write{Action: repo.Create, Collection: coll, RKey: fmt.Sprintf("x%02d", i), Record: []byte{0xa0}}
			if _, err := h.repo.Apply(h.Context(), []repo.Write{w}, nil); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		h.car("/xrpc/com.atproto.sync.getRecord?did=%&collection=" + coll + "&rkey=k05")
	}
}
