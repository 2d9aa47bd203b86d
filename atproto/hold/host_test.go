package hold

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	indigo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/ipfs/go-cid"
	car "github.com/ipld/go-car"
	"github.com/tidings-dev/tidings/atproto/repo"
)

// raw fetches a CAR that need not be a whole repository.
func (h *testHold) raw(path string) []byte {
	h.Helper()
	resp, body := h.Do(h.Request("GET", "/xrpc/"+strings.ReplaceAll(path, "%", h.DID), ""))
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/vnd.ipld.car" {
		h.Fatalf("%s: got %d %s %.200s", path, resp.StatusCode, resp.Header.Get("Content-Type"), body)
	}
	return body
}

// blocks reads one with another reader than ours.
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

func TestStatus(t *testing.T) {
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
		t.Errorf("listRepos, the next page: got %v", next)
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
	h.fill2() // the old root may live on below the new one, the old commit does not
	const unknown = "bafyreiclp443lavogvhj3d2ob2cxbfuscni2k5jk7bebjzg7khl3esabwq"
	h.Want("GET", method+"&cids="+record.String()+"&cids="+head.Commit.String()+"&cids="+unknown, "", 400, "InvalidRequest",
		"Could not find cids: "+head.Commit.String()+","+unknown)
	h.Want("GET", method+"&cids=zzz", "", 400, "InvalidRequest", "cids")
	h.Want("GET", method, "", 400, "InvalidRequest", `missing required key "cids"`)
}

// fill2 makes one further commit.
func (h *testHold) fill2() {
	h.Helper()
	w := repo.Write{Action: repo.Create, Collection: coll, RKey: fmt.Sprint("x", h.repo.Head().Seq), Record: []byte{0xa0}}
	if _, err := h.repo.Apply(h.Context(), []repo.Write{w}, nil); err != nil {
		h.Fatal(err)
	}
}

// The older parameters are answered for what is kept, and refused for the rest.
func TestOlderSync(t *testing.T) {
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
	post([]byte("nonsense"), kind, 400, "InvalidRequest", "invalid repository archive")
	post(car[:len(car)-5], kind, 400, "InvalidRequest", "invalid repository archive")
	before := target.repo.Head()
	post(car, kind, 200, "", "")
	commit, loaded := target.car("/xrpc/com.atproto.sync.getRepo?did=%") // signed by the target's own key
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

// Writes of one batch to one record come to what they add up to, in an event
// that others can undo.
func TestBatchOfOneRecord(t *testing.T) {
	t.Parallel()
	h := loggedIn(t)
	for _, c := range []struct {
		writes []string
		value  any // of the record afterwards, nil: none
		ops    int
	}{
		{[]string{`create a {"n":1}`, `delete a`}, nil, 0},
		{[]string{`create a {"n":1}`, `update a {"n":2}`}, 2.0, 1},
		{[]string{`update a {"n":3}`, `update a {"n":4}`}, 4.0, 1},
		{[]string{`delete a`, `create a {"n":4}`}, 4.0, 0},
		{[]string{`delete a`, `create a {"n":5}`}, 5.0, 1},
		{[]string{`update a {"n":6}`, `delete a`}, nil, 1},
		{nil, nil, 0},
	} {
		before := h.repo.Head()
		answer := h.Want("POST", apply, writes(c.writes...), 200, "", "")
		if got := results(t, answer); len(got) != len(c.writes) {
			t.Errorf("%v: got %d results", c.writes, len(got))
		}
		head := h.repo.Head()
		if head.Rev <= before.Rev || answer["commit"].(map[string]any)["cid"] != head.Commit.String() {
			t.Errorf("%v: no new commit: %v", c.writes, answer)
		}
		status, record := h.Call("GET", get+"?repo=%&collection="+coll+"&rkey=a", "")
		var value any
		if status == 200 {
			value = record["value"].(map[string]any)["n"]
		}
		if value != c.value {
			t.Errorf("%v: got %v, want %v", c.writes, value, c.value)
		}
		events, err := h.repo.Events(before.Seq, 10)
		if err != nil || len(events) != 1 {
			t.Fatalf("%v: got %d events, %v", c.writes, len(events), err)
		}
		h.verifyCommit(events[0].Frame, c.ops)
	}
}

// verifyCommit lets indigo undo the #commit of a frame.
func (h *testHold) verifyCommit(frame []byte, ops int) {
	h.Helper()
	body, ok := bytes.CutPrefix(frame, []byte("\xa2\x61t\x67#commit\x62op\x01"))
	var msg comatproto.SyncSubscribeRepos_Commit
	if !ok || msg.UnmarshalCBOR(bytes.NewReader(body)) != nil {
		h.Fatalf("not a #commit: %.30q", frame)
	}
	if _, err := indigo.VerifyCommitMessage(h.Context(), &msg); err != nil || len(msg.Ops) != ops || msg.PrevData == nil {
		h.Errorf("got %d operations, %v, want %d", len(msg.Ops), err, ops)
	}
}
