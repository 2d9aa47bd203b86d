package hold

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/internal/race"
)

const export = lexicon.NSIDExportUserData

// dataOf is the UserData of a hold with records of one account.
type dataOf string

func (d dataOf) HasData(did string) (bool, error) { return did == string(d), nil }

func (d dataOf) DeleteData(context.Context, Deletion) (lexicon.DeletedUserData, error) {
	return lexicon.DeletedUserData{}, errors.New("not expected")
}

// writeRecords writes records in commits of the largest size.
func (h *testHold) writeRecords(n int, record func(i int) (collection, rkey string, value any)) {
	h.Helper()
	var writes []repo.Write
	for i := range n {
		collection, rkey, value := record(i)
		cbor, err := lexicon.Encode(value)
		if err != nil {
			h.Fatal(err)
		}
		writes = append(writes, repo.Write{Action: repo.Create, Collection: collection, RKey: rkey, Record: cbor})
		if len(writes) < repo.MaxWrites && i < n-1 {
			continue
		}
		if _, err := h.repo.Apply(h.Context(), writes, nil); err != nil {
			h.Fatal(err)
		}
		writes = nil
	}
}

func testLayer(i int, user string) lexicon.Layer {
	return lexicon.Layer{
		Digest: fmt.Sprintf("sha256:%064x", i), Size: int64(i), MediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
		Manifest: lexicon.ManifestURI(user, fmt.Sprintf("sha256:%064x", i)), UserDID: user, CreatedAt: "2026-01-02T03:04:05Z",
	}
}

func testPost(text string, features ...map[string]any) map[string]any {
	return map[string]any{"$type": lexicon.NSIDPost, "text": text, "createdAt": "2026-01-02T03:04:05Z", "facets": []any{
		map[string]any{"index": map[string]any{"byteStart": 0, "byteEnd": 1}, "features": features},
	}}
}

// The output has the records about the account only, and is valid by the schema.
func TestExportUserData(t *testing.T) {
	t.Parallel()
	h, _, token := notifiable(t, func(cfg *Config) { cfg.UserData = dataOf(strangerDID) })
	mention := func(did string) map[string]any {
		return map[string]any{"$type": "app.bsky.richtext.facet#mention", "did": did}
	}
	link := map[string]any{"$type": "app.bsky.richtext.facet#link", "uri": "https://example.com/" + strangerDID}
	older := map[string]any{
		"$type": lexicon.NSIDLayer, "digest": testLayer(3, "").Digest, "size": 3, "mediaType": testLayer(3, "").MediaType,
		"repository": "oss/app", "userDid": strangerDID, "userHandle": "stranger.test", "createdAt": "2026-01-02T03:04:05Z",
	}
	named := testLayer(2, ownerDID)
	named.Manifest = lexicon.ManifestURI(strangerDID, named.Digest)
	stats := func(owner string) lexicon.Stats {
		return lexicon.Stats{OwnerDID: owner, Repository: "oss/app", PullCount: 7, PushCount: 2, LastPull: "2026-01-02T03:04:05Z", UpdatedAt: "2026-01-02T03:04:06Z"}
	}
	records := []struct {
		collection, rkey string
		value            any
	}{
		{lexicon.NSIDLayer, "3aaaaaaaaaaa2", testLayer(1, strangerDID)},
		{lexicon.NSIDLayer, "3aaaaaaaaaaa3", named},
		{lexicon.NSIDLayer, "3aaaaaaaaaaa4", older},
		{lexicon.NSIDStats, "a", stats(strangerDID)},
		{lexicon.NSIDStats, "b", stats(ownerDID)},
		{lexicon.NSIDPost, "3aaaaaaaaaaa2", testPost("mention", link, mention(ownerDID), mention(strangerDID))},
		{lexicon.NSIDPost, "3aaaaaaaaaaa3", testPost("mention of another", mention(ownerDID))},
		{lexicon.NSIDPost, "3aaaaaaaaaaa4", testPost("no mention of "+strangerDID, link)},
	}
	h.writeRecords(len(records), func(i int) (string, string, any) { r := records[i]; return r.collection, r.rkey, r.value })

	h.Token = token(strangerDID, export)
	resp, raw := h.Do(h.Request("GET", "/xrpc/"+export, ""))
	if err := lexicon.Output(export, raw); err != nil || resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("got %d %s, %v", resp.StatusCode, raw, err)
	}
	hex := func(i int) string { return fmt.Sprintf("%064x", i) }
	want := strings.NewReplacer("HOLD", h.DID, "USER", strangerDID, "TIME", h.clock().UTC().Format(time.RFC3339), "\n", "").Replace(
		`{"exportedAt":"TIME","holdDid":"HOLD","userDid":"USER","isCaptain":false,"layerRecords":[
{"digest":"sha256:` + hex(1) + `","size":1,"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","manifest":"at://USER/io.atcr.manifest/` + hex(1) + `","createdAt":"2026-01-02T03:04:05Z"},
{"digest":"sha256:` + hex(3) + `","size":3,"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","createdAt":"2026-01-02T03:04:05Z"}
],"statsRecords":[{"repository":"oss/app","pullCount":7,"pushCount":2,"lastPull":"2026-01-02T03:04:05Z","updatedAt":"2026-01-02T03:04:06Z"}
],"blueskyPosts":[{"uri":"at://HOLD/app.bsky.feed.post/3aaaaaaaaaaa2","text":"mention","createdAt":"2026-01-02T03:04:05Z"}]}`)
	if string(raw) != want {
		t.Errorf("got\n%s\nwant\n%s", raw, want)
	}
	h.Want("GET", export, "", 401, lexicon.ErrorAuthRequired, "used before")
}

// An account without data is refused before its document is fetched; that of one with data is
// fetched within the limits of unlisted accounts, and it may not report for that.
func TestWhoMayExport(t *testing.T) {
	t.Parallel()
	h, _, token := notifiable(t, func(cfg *Config) { cfg.UserData = dataOf(strangerDID) })
	for _, tc := range []struct {
		name, token string
		status      int
		message     string
	}{
		{"an account with data", token(strangerDID, export), 200, ""},
		{"a configured owner", token(ownerDID, export), 200, ""},
		{"a configured registry", token(registryDID, export), 200, ""},
		{"no token", "", 401, ""},
		{"no JWT", "x", 401, "poorly formatted"},
		{"token of another method", token(strangerDID, notify), 401, "must match: " + export},
	} {
		h.Token = tc.token
		status, answer := h.Call("GET", export, "")
		message, _ := answer["message"].(string)
		if status != tc.status || status != 200 && answer["error"] != lexicon.ErrorAuthRequired || !strings.Contains(message, tc.message) {
			t.Errorf("%s: got %d %v", tc.name, status, answer)
		}
	}
	h.Token = token(strangerDID)
	h.Want("POST", notify, notification(), 403, "Forbidden", "may not call")

	var fetches atomic.Int64
	none, _, token := notifiable(t, func(cfg *Config) {
		directory := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fetches.Add(1)
			http.NotFound(w, r)
		}))
		t.Cleanup(directory.Close)
		cfg.UserData, cfg.PLC = dataOf(ownerDID), directory.URL
	})
	none.Token = token(strangerDID, export)
	none.Want("GET", export, "", 401, lexicon.ErrorAuthRequired, "no records of the issuer's")
	if n := fetches.Load(); n != 0 {
		t.Errorf("%d documents were fetched", n)
	}
	without, _, token := notifiable(t)
	without.Token = token(ownerDID, export)
	without.Want("GET", export, "", 501, "MethodNotImplemented", "")
}

// An account has one export at a time, and all have few.
func TestUserExportSlots(t *testing.T) {
	t.Parallel()
	h, _, token := notifiable(t, func(cfg *Config) { cfg.UserData = dataOf(strangerDID) })
	for _, held := range [][]string{{strangerDID}, {"did:plc:a", "did:plc:b"}} {
		for _, did := range held {
			if !h.server.userExports.acquire(did, maxUserExports) {
				t.Fatalf("%s got no slot", did)
			}
		}
		h.Token = token(strangerDID, export)
		h.Want("GET", export, "", 429, "RateLimitExceeded", "")
		for _, did := range held {
			h.server.userExports.release(did)
		}
		h.Token = token(strangerDID, export)
		h.Want("GET", export, "", 200, "", "")
	}
	if n := len(h.server.userExports.inUse); n != 0 {
		t.Errorf("%d slots are in use", n)
	}
}

// memoryWatcher notes the largest heap while it is written to.
type memoryWatcher struct {
	bytes, next, peak uint64
}

func (w *memoryWatcher) Write(b []byte) (int, error) {
	if w.bytes += uint64(len(b)); w.bytes >= w.next {
		w.next = w.bytes + 4<<20
		w.peak = max(w.peak, liveHeap())
	}
	return len(b), nil
}

func liveHeap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// The memory of an export does not grow with the number of records. Not parallel, since it
// measures the heap.
func TestExportOfManyRecords(t *testing.T) {
	race.Skip(t, "nothing in it runs concurrently")
	const records = 100_000
	h, _, _ := notifiable(t, func(cfg *Config) { cfg.UserData = dataOf(strangerDID) })
	h.writeRecords(records, func(i int) (string, string, any) {
		return lexicon.NSIDLayer, fmt.Sprintf("3%012d", i), testLayer(i, strangerDID)
	})
	if err := h.server.writeUserData(t.Context(), io.Discard, strangerDID); err != nil { // fills Pebble's cache
		t.Fatal(err)
	}
	before, began := liveHeap(), time.Now()
	w := &memoryWatcher{next: 1}
	if err := h.server.writeUserData(t.Context(), w, strangerDID); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes in %v, heap %d -> %d", w.bytes, time.Since(began), before, w.peak)
	if w.bytes < 250*records || w.peak > before+4<<20 {
		t.Errorf("%d bytes written, and the heap grew from %d to %d bytes", w.bytes, before, w.peak)
	}
}
