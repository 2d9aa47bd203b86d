package hold

import (
	"bytes"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	indigo "github.com/bluesky-social/indigo/atproto/repo"
)

const (
	apply  = "com.atproto.repo.applyWrites"
	create = "com.atproto.repo.createRecord"
	put    = "com.atproto.repo.putRecord"
	del    = "com.atproto.repo.deleteRecord"
	get    = "com.atproto.repo.getRecord"
	coll   = "com.example.thing"
)

// writes returns an applyWrites input: each item is "create|update|delete key value".
func writes(items ...string) string {
	list := make([]string, len(items))
	for i, item := range items {
		action, rest, _ := strings.Cut(item, " ")
		key, value, _ := strings.Cut(rest, " ")
		list[i] = `{"$type":"com.atproto.repo.applyWrites#` + action + `","collection":"` + coll + `"`
		if key != "-" {
			list[i] += `,"rkey":"` + key + `"`
		}
		if value != "" {
			list[i] += `,"value":` + value
		}
		list[i] += "}"
	}
	return `{"repo":"%","writes":[` + strings.Join(list, ",") + `]}`
}

func with(body, member string) string { return strings.TrimSuffix(body, "}") + "," + member + "}" }

func results(t *testing.T, answer map[string]any) (list []map[string]any) {
	t.Helper()
	given, ok := answer["results"].([]any)
	if !ok {
		t.Fatalf("no results in %v", answer)
	}
	for _, r := range given {
		list = append(list, r.(map[string]any))
	}
	return list
}

func TestApplyWrites(t *testing.T) {
	t.Parallel()
	h := loggedIn(t)
	answer := h.Want("POST", apply, writes(`create a {"n":1}`, `create - {"n":2}`, `create sha256:abc {"n":3}`), 200, "", "")
	got := results(t, answer)
	if len(got) != 3 || got[0]["$type"] != apply+"#createResult" || got[0]["uri"] != "at://"+h.DID+"/"+coll+"/a" ||
		got[0]["validationStatus"] != "unknown" || got[0]["cid"] == nil {
		t.Errorf("got %v", got)
	}
	commit := answer["commit"].(map[string]any)
	if head := h.repo.Head(); commit["cid"] != head.Commit.String() || commit["rev"] != head.Rev {
		t.Errorf("commit is %v, head %v", commit, head)
	}
	got = results(t, h.Want("POST", apply, writes(`update a {"n":4}`, `delete sha256:abc`), 200, "", ""))
	if got[0]["$type"] != apply+"#updateResult" || got[0]["cid"] == nil || got[1]["$type"] != apply+"#deleteResult" || len(got[1]) != 1 {
		t.Errorf("got %v", got)
	}
	// A handle instead of the DID; the writes are applied in order.
	h.Want("POST", apply, strings.Replace(writes(`create b {"n":1}`, `update b {"n":2}`), "%", testHost, 1), 200, "", "")
	if value := h.Want("GET", get+"?repo=%&collection="+coll+"&rkey=b", "", 200, "", "")["value"].(map[string]any); value["n"] != 2.0 || value["$type"] != coll {
		t.Errorf("got %v", value)
	}
	before := h.repo.Head()
	if answer := h.Want("POST", apply, `{"repo":"%","writes":[]}`, 200, "", ""); len(results(t, answer)) != 0 || h.repo.Head().Seq == before.Seq {
		t.Errorf("no writes: got %v, want a commit, as at the reference server", answer)
	}
}

func TestInvalidWrites(t *testing.T) {
	t.Parallel()
	h := loggedIn(t)
	h.Want("POST", apply, writes(`create taken {"n":1}`), 200, "", "")
	head := h.repo.Head()
	many := make([]string, 201)
	for i := range many {
		many[i] = fmt.Sprintf(`create k%d {}`, i)
	}
	post := func(members string) string {
		return `{"repo":"%","collection":"app.bsky.feed.post","rkey":"3kznmn7xqxl22","record":{"text":"x","createdAt":"2024-01-01T00:00:00Z"` + members + `}}`
	}
	for _, c := range []struct {
		method, body string
		status       int
		name, text   string
	}{
		{apply, writes(many...), 400, "InvalidRequest", "Too many writes. Max: 200"},
		{apply, writes(`create new {}`, `create taken {"n":1}`), 400, "RecordAlreadyExists", coll + "/taken at $.writes[1]"},
		{apply, writes(`create new {}`, `create new {}`), 400, "RecordAlreadyExists", coll + "/new"},
		{apply, writes(`update none {}`), 400, "RecordNotFound", coll + "/none"},
		{apply, writes(`delete none`), 400, "RecordNotFound", coll + "/none"},
		{apply, with(writes(`create new {}`), `"swapCommit":"bafyreiclp443lavogvhj3d2ob2cxbfuscni2k5jk7bebjzg7khl3esabwq"`), 400, "InvalidSwap", "Commit was at " + head.Commit.String()},
		{apply, with(writes(`create new {}`), `"swapCommit":"zzz"`), 400, "InvalidRequest", "$.swapCommit"},
		{apply, with(writes(`create new {}`), `"validate":true`), 400, "InvalidRequest", "Unknown lexicon type: " + coll},
		{apply, writes(`create a/b {}`), 400, "InvalidRequest", "$.writes[0]"},
		{apply, writes(`create . {}`), 400, "InvalidRequest", "$.writes[0]"},
		{apply, writes(`create  {}`), 400, "InvalidRequest", "$.writes[0]"},
		{apply, writes(`delete a/b`), 400, "InvalidRequest", "$.writes[0]"},
		{apply, writes(`create ` + strings.Repeat("k", 513) + ` {}`), 400, "InvalidRequest", "$.writes[0]"},
		{apply, strings.Replace(writes(`create k {}`), coll, "foo.bar", 1), 400, "InvalidRequest", "$.writes[0].collection"},
		{apply, writes(`create k {"$type":"com.example.other"}`), 400, "InvalidRequest", "Invalid $type: expected " + coll + ", got com.example.other"},
		{apply, writes(`burn k {}`), 400, "InvalidRequest", "$.writes[0]"},
		{apply, writes(`create k`), 400, "InvalidRequest", `missing required key "value" at $.writes[0]`},
		{apply, writes(`create k {"size":1.5}`), 400, "InvalidRequest", "(got 1.5) at $.writes[0].value.size"},
		{apply, writes(`create k {"size":9007199254740992}`), 400, "InvalidRequest", "2^53-1"},
		{apply, writes(`create k {"a":1,"a":2}`), 400, "InvalidRequest", "duplicate key"},
		{apply, writes(`create k ` + strings.Repeat(`{"a":`, 40) + `1` + strings.Repeat(`}`, 40)), 400, "InvalidRequest", "nested too deeply"},
		{apply, writes(`create k {"b":{"$type":"blob","ref":{"$link":"bafkreiccldh766hwcnuxnf2wh6jgzepf2nlu2lvcllt63eww5p6chi4ity"},"mimeType":"image/png","size":1}}`), 400, "BlobNotFound", "bafkreiccldh766hwcnuxnf2wh6jgzepf2nlu2lvcllt63eww5p6chi4ity"},
		{apply, `{"writes":[]}`, 400, "InvalidRequest", `missing required key "repo" at $`},
		{apply, `{"repo":"did:web:other.example.com","writes":[]}`, 403, "AccountNotFound", "Account not found"},
		{apply, `{"repo":"%","writes":[]`, 400, "SyntaxError", ""},
		{apply, `{"repo":"%","writes":[]}{}`, 400, "SyntaxError", ""},
		{apply, `[]`, 400, "InvalidRequest", "expected an object"},
		{create, `{"repo":"%","collection":"` + coll + `","rkey":"taken","record":{}}`, 400, "RecordAlreadyExists", coll + "/taken"},
		{create, `{"repo":"did:web:other.example.com","collection":"` + coll + `","record":{}}`, 403, "AccountNotFound", ""},
		{create, `{"repo":"%","collection":"app.bsky.actor.profile","record":{}}`, 400, "InvalidRequest", `expected "self"`},
		{create, strings.Replace(post(``), "3kznmn7xqxl22", "my-post", 1), 400, "InvalidRequest", "invalid record key for app.bsky.feed.post"},
		{create, post(`,"text":"y"`), 400, "InvalidRequest", "duplicate key"},
		{create, strings.Replace(post(``), `"text":"x"`, `"text":"`+strings.Repeat("é", 301)+`"`, 1), 400, "InvalidRequest", "grapheme too big (maximum 300, got 301) at $.text"},
		{create, strings.Replace(post(``), `2024-01-01T00:00:00Z`, `yesterday`, 1), 400, "InvalidRequest", "at $.createdAt"},
		{put, `{"repo":"%","collection":"` + coll + `","rkey":"taken","record":{},"swapRecord":null}`, 400, "InvalidSwap", "Record was at bafy"},
		{put, `{"repo":"%","collection":"` + coll + `","rkey":"none","record":{},"swapRecord":"bafyreiclp443lavogvhj3d2ob2cxbfuscni2k5jk7bebjzg7khl3esabwq"}`, 400, "InvalidSwap", "Record was at null"},
		{put, `{"repo":"%","collection":"` + coll + `","rkey":"a/b","record":{}}`, 400, "InvalidRequest", "$.rkey"},
		{del, `{"repo":"%","collection":"` + coll + `","rkey":"taken","swapRecord":"bafyreiclp443lavogvhj3d2ob2cxbfuscni2k5jk7bebjzg7khl3esabwq"}`, 400, "InvalidSwap", "Record was at bafy"},
		{del, `{"repo":"%","collection":"` + coll + `","rkey":"taken","swapCommit":"bafyreiclp443lavogvhj3d2ob2cxbfuscni2k5jk7bebjzg7khl3esabwq"}`, 400, "InvalidSwap", "Commit was at " + head.Commit.String()},
	} {
		h.Want("POST", c.method, c.body, c.status, c.name, c.text)
	}
	if after := h.repo.Head(); after != head {
		t.Errorf("a refused write changed the head from %v to %v", head, after)
	}
}

func TestWritesRequireSession(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	head := h.repo.Head()
	for _, method := range []string{apply, create, put, del} {
		h.Want("POST", method, writes(`create k {}`), 401, "AuthMissing", "Authentication Required")
	}
	if h.repo.Head() != head {
		t.Error("the head changed")
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	h := loggedIn(t)
	post := func(key, text, validate string) string {
		return `{"repo":"%","collection":"app.bsky.feed.post","rkey":"` + key + `","record":{"text":` + text + `,"createdAt":"2024-01-01T00:00:00Z"}` + validate + `}`
	}
	for _, c := range []struct{ body, status string }{
		{post("3kznmn7xqxl22", `"a"`, ``), "valid"},
		{post("3kznmn7xqxl23", `"a"`, `,"validate":true`), "valid"},
		{post("my-post", `7`, `,"validate":false`), ""},
		{`{"repo":"%","collection":"` + coll + `","record":{}}`, "unknown"},
		{`{"repo":"%","collection":"` + coll + `","record":{},"validate":false}`, ""},
	} {
		answer := h.Want("POST", create, c.body, 200, "", "")
		if got, _ := answer["validationStatus"].(string); got != c.status {
			t.Errorf("%s: got %q, want %q", c.body, got, c.status)
		}
	}
	h.Want("POST", create, post("3kznmn7xqxl24", `1.5`, `,"validate":false`), 400, "InvalidRequest", "expected an integer")
}

func TestCreateRecordWithoutKey(t *testing.T) {
	t.Parallel()
	h := loggedIn(t)
	seen := map[any]bool{}
	for range 5 {
		answer := h.Want("POST", create, `{"repo":"%","collection":"app.bsky.feed.post","record":{"text":"x","createdAt":"2024-01-01T00:00:00Z"}}`, 200, "", "")
		seen[answer["uri"]] = true
	}
	if len(seen) != 5 {
		t.Errorf("got %v", seen)
	}
}

func TestPutRecord(t *testing.T) {
	t.Parallel()
	h := loggedIn(t)
	body := func(n int, more string) string {
		return fmt.Sprintf(`{"repo":"%%","collection":"%s","rkey":"k","record":{"n":%d}%s}`, coll, n, more)
	}
	first := h.Want("POST", put, body(1, `,"swapRecord":null`), 200, "", "")
	if first["commit"] == nil {
		t.Errorf("got %v", first)
	}
	head := h.repo.Head()
	same := h.Want("POST", put, body(1, ``), 200, "", "")
	if same["commit"] != nil || same["cid"] != first["cid"] || h.repo.Head() != head {
		t.Errorf("the same content: got %v", same)
	}
	second := h.Want("POST", put, body(2, fmt.Sprintf(`,"swapRecord":%q,"swapCommit":%q`, first["cid"], head.Commit)), 200, "", "")
	if second["commit"] == nil || second["cid"] == first["cid"] {
		t.Errorf("got %v", second)
	}
	h.Want("POST", put, body(3, fmt.Sprintf(`,"swapRecord":%q`, first["cid"])), 400, "InvalidSwap", fmt.Sprint("Record was at ", second["cid"]))
	h.Want("POST", put, body(3, fmt.Sprintf(`,"swapCommit":%q`, head.Commit)), 400, "InvalidSwap", "Commit was at "+h.repo.Head().Commit.String())
}

func TestDeleteRecord(t *testing.T) {
	t.Parallel()
	h := loggedIn(t)
	body := `{"repo":"%","collection":"` + coll + `","rkey":"k"}`
	if answer := h.Want("POST", del, body, 200, "", ""); len(answer) != 0 {
		t.Errorf("missing: got %v", answer)
	}
	h.Want("POST", apply, writes(`create k {}`), 200, "", "")
	if answer := h.Want("POST", del, body, 200, "", ""); answer["commit"] == nil {
		t.Errorf("got %v", answer)
	}
	h.Want("GET", get+"?repo=%&collection="+coll+"&rkey=k", "", 400, "RecordNotFound", "at://%/"+coll+"/k")
}

// Concurrent puts all succeed, one after the other.
func TestConcurrentPutRecord(t *testing.T) {
	t.Parallel()
	h := loggedIn(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			status, answer := h.Call("POST", put, fmt.Sprintf(`{"repo":"%%","collection":"%s","rkey":"k%d","record":{"n":%d}}`, coll, i%2, i))
			if status != 200 {
				t.Errorf("put %d: %d %v", i, status, answer)
			}
		})
	}
	wg.Wait()
	records, _, err := h.repo.List(coll, "", 10, false)
	if err != nil || len(records) != 2 {
		t.Errorf("got %v, %v", records, err)
	}
}

// No input causes an internal error, and no refused input changes the head.
func FuzzApplyWrites(f *testing.F) {
	h := loggedIn(f)
	fill := strings.NewReplacer("%", h.DID)
	for _, seed := range []string{
		writes(`create k {"n":1}`), writes(`update k {}`, `delete k`), writes(`create - {"a":{"$bytes":"AQ"}}`),
		with(writes(`create k {}`), `"validate":false`), with(writes(), `"swapCommit":"x"`), `{"repo":"%","writes":[{}]}`, `[]`, ``,
	} {
		f.Add([]byte(fill.Replace(seed)))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		before := h.repo.Head()
		r := httptest.NewRequest("POST", "/xrpc/"+apply, strings.NewReader(string(body)))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer "+h.Token)
		w := httptest.NewRecorder()
		h.server.ServeHTTP(w, r)
		if w.Code >= 500 {
			t.Fatalf("%s: got %d %s", body, w.Code, w.Body)
		}
		if moved := h.repo.Head() != before; moved != (w.Code == 200) {
			t.Fatalf("%s: got %d %s, head changed: %t", body, w.Code, w.Body, moved)
		}
	})
}

// Several writes of one batch to the same record become one operation of the
// event, and subscribers can verify it.
func TestSeveralWritesToOneRecord(t *testing.T) {
	t.Parallel()
	h := loggedIn(t)
	for _, c := range []struct {
		writes []string
		value  any // of the record afterwards; nil: no record
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

// verifyCommit verifies the #commit in a frame with indigo, which inverts its
// operations.
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
