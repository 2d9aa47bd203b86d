package hold

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	indigo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"github.com/tidings-dev/tidings/atproto/repo"
)

// car fetches a CAR, and checks its commit's signature against did.json.
func (h *testHold) car(path string) (*indigo.Commit, *indigo.Repo) {
	h.Helper()
	resp, body := h.do(h.request("GET", strings.ReplaceAll(path, "%", h.did), ""))
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
	if key["id"] != h.did+"#atproto" || key["type"] != "Multikey" || key["controller"] != h.did {
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
	if commit.Data != head.Data || commit.Rev != head.Rev || commit.DID != h.did {
		t.Errorf("got %+v, head is %+v", commit, head)
	}
	records := 0
	err := loaded.MST.Walk(func([]byte, cid.Cid) error { records++; return nil })
	if err != nil || records != 31 {
		t.Errorf("got %d records, %v", records, err)
	}
	const method = "com.atproto.sync.getRepo"
	h.want("GET", method+"?did=did:web:other.example.com", "", 400, "RepoNotFound", "Could not find repo for DID: did:web:other.example.com")
	h.want("GET", method, "", 400, "InvalidRequest", `params: missing required key "did"`)
	h.want("GET", method+"?did=x", "", 400, "InvalidRequest", "at $.did")
	h.want("GET", method+"?did=%&since=x", "", 400, "InvalidRequest", "at $.since")
	resp, body := h.do(h.request("GET", "/xrpc/"+method+"?did="+h.did+"&since="+head.Rev, ""))
	if resp.StatusCode != 200 || len(body) != 59 {
		t.Errorf("since the head: got %d and %d bytes, want a header of 59", resp.StatusCode, len(body))
	}
	if answer := h.want("GET", "com.atproto.sync.getLatestCommit?did=%", "", 200, "", ""); answer["cid"] != head.Commit.String() || answer["rev"] != head.Rev {
		t.Errorf("got %v", answer)
	}
	h.want("GET", "com.atproto.sync.getLatestCommit?did=did:web:other.example.com", "", 400, "RepoNotFound", "")
}

func TestGetRepoIsLimited(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	for range maxExports {
		h.server.exports <- struct{}{}
	}
	resp, body := h.do(h.request("GET", "/xrpc/com.atproto.sync.getRepo?did="+h.did, ""))
	if resp.StatusCode != 429 || resp.Header.Get("Retry-After") == "" || resp.Header.Get("Content-Type") != "application/json" {
		t.Errorf("got %d %v %s", resp.StatusCode, resp.Header, body)
	}
	<-h.server.exports
	h.car("/xrpc/com.atproto.sync.getRepo?did=%")
	if len(h.server.exports) != maxExports-1 {
		t.Errorf("%d exports are counted, want %d", len(h.server.exports), maxExports-1)
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
	h.want("GET", "com.atproto.sync.getRecord?did=did:web:other.example.com&collection="+coll+"&rkey=k", "", 400, "RepoNotFound", "")
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
