package hold

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/tidings-dev/tidings/atproto/repo"
)

func TestRepoStatus(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	head := h.repo.Head()
	if got := h.Want("GET", "com.atproto.sync.getRepoStatus?did=%", "", 200, "", ""); got["did"] != h.DID || got["active"] != true || got["rev"] != head.Rev {
		t.Errorf("getRepoStatus: got %v", got)
	}
	if got := h.Want("GET", "com.atproto.sync.getHead?did=%", "", 200, "", ""); got["root"] != head.Commit.String() {
		t.Errorf("getHead: got %v", got)
	}
	list := h.Want("GET", "com.atproto.sync.listRepos", "", 200, "", "")
	one := list["repos"].([]any)[0].(map[string]any)
	if len(list["repos"].([]any)) != 1 || one["did"] != h.DID || one["head"] != head.Commit.String() || one["rev"] != head.Rev || one["active"] != true {
		t.Errorf("listRepos: got %v", list)
	}
	next := h.Want("GET", "com.atproto.sync.listRepos?limit=1&cursor="+list["cursor"].(string), "", 200, "", "")
	if len(next["repos"].([]any)) != 0 || next["cursor"] != nil {
		t.Errorf("listRepos, next page: got %v", next)
	}
	h.Want("GET", "com.atproto.sync.listRepos?cursor=x", "", 400, "InvalidRequest", "Malformed cursor")
	h.Want("GET", "com.atproto.sync.listRepos?limit=1001", "", 400, "InvalidRequest", "at $.limit")
	for _, method := range []string{"getRepoStatus", "getHead", "getCheckout", "getCommitPath", "getBlocks?cids=" + head.Commit.String()} {
		sep := "?"
		if strings.Contains(method, "?") {
			sep = "&"
		}
		h.Want("GET", "com.atproto.sync."+method+sep+"did=did:web:other.example.com", "", 400, "RepoNotFound", "Could not find repo for DID: did:web:other.example.com")
		h.Want("GET", "com.atproto.sync."+method, "", 400, "InvalidRequest", `missing required key "did"`)
	}
}

func TestSyncGetRecord(t *testing.T) {
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

// Proofs are consistent while others write.
func TestSyncGetRecordDuringWrites(t *testing.T) {
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
