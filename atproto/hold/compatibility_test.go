package hold

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/json"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
)

// As the reference server does, the hold accepts parameters without a value, a
// slash after the method, and a byte order mark.
func TestLenientRequests(t *testing.T) {
	t.Parallel()
	h := loggedIn(t)
	h.fill(3, 10)
	for _, path := range []string{
		"com.atproto.repo.getRecord?repo=%&collection=" + coll + "&rkey=k00&cid=",
		"com.atproto.repo.listRecords?repo=%&collection=" + coll + "&limit=&cursor=&reverse=",
		"com.atproto.repo.listRecords/?repo=%&collection=" + coll,
		"com.atproto.sync.getLatestCommit/?did=%",
		"com.atproto.sync.listRepos?limit=&cursor=",
		"com.atproto.sync.listBlobs?did=%&since=&limit=&cursor=",
		"com.atproto.server.getServiceAuth?aud=did:web:api.example.com&exp=&lxm=",
		"_health/",
	} {
		h.Want("GET", path, "", 200, "", "")
	}
	for _, path := range []string{
		"com.atproto.sync.getRepo?did=%&since=",
		"com.atproto.sync.getRecord?did=%&collection=" + coll + "&rkey=k00&commit=",
		"com.atproto.sync.getCheckout/?did=%&commit=",
	} {
		h.raw(path)
	}
	h.Want("GET", "com.atproto.repo.getRecord?repo=%&collection="+coll+"&rkey=", "", 400, "InvalidRequest", `missing required key "rkey"`)
	h.Want("GET", "com.atproto.sync.getBlocks?did=%&cids=&cids=", "", 400, "InvalidRequest", `missing required key "cids"`)
	h.Want("GET", "com.atproto.sync.getLatestCommit//?did=%", "", 400, "InvalidRequest", "invalid method name")
	h.Want("POST", apply+"/", writes(`create slash {}`), 200, "", "")
	h.Want("POST", apply, "\ufeff"+writes(`create bom {}`), 200, "", "")
	h.Want("POST", apply, "\ufeff\ufeff"+writes(`create boms {}`), 400, "SyntaxError", "")
}

// compressors are the supported content codings.
var compressors = map[string]func(io.Writer) io.WriteCloser{
	"gzip":    func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
	"deflate": func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) },
}

func compressed(t *testing.T, encoding, text string) string {
	t.Helper()
	var out bytes.Buffer
	w := compressors[encoding](&out)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestCompressedBodies(t *testing.T) {
	t.Parallel()
	h := loggedIn(t)
	post := func(nsid, mediaType, encoding, body string) (int, map[string]any) {
		t.Helper()
		r := h.Request("POST", "/xrpc/"+nsid, body)
		r.Header.Set("Content-Type", mediaType)
		r.Header.Set("Content-Encoding", encoding)
		resp, raw := h.Do(r)
		var answer map[string]any
		if err := json.Unmarshal(raw, &answer); err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		return resp.StatusCode, answer
	}
	const upload = "com.atproto.repo.uploadBlob"
	for encoding := range compressors {
		body := strings.ReplaceAll(writes(`create `+encoding+` {}`), "%", h.DID)
		if status, answer := post(apply, "application/json", strings.ToUpper(encoding), compressed(t, encoding, body)); status != 200 {
			t.Errorf("%s: got %d %v", encoding, status, answer)
		}
		whole := compressed(t, encoding, body)
		if status, answer := post(apply, "application/json", encoding, whole[:len(whole)-6]); status != 400 {
			t.Errorf("%s, truncated: got %d %v", encoding, status, answer)
		}
		status, answer := post(upload, "text/plain", encoding, compressed(t, encoding, "hello "+encoding))
		if status != 200 || answer["blob"].(map[string]any)["size"] != float64(len("hello "+encoding)) {
			t.Errorf("%s: got %d %v", encoding, status, answer)
		}
		if status, answer := post(upload, "text/plain", encoding, "hello"); status != 400 {
			t.Errorf("%s, not compressed: got %d %v", encoding, status, answer)
		}
	}
	for nsid, want := range map[string]string{apply: "UnsupportedMediaTypeError", upload: "UnsupportedMediaType"} {
		if status, answer := post(nsid, mediaTypeOf(nsid), "zstd", "{}"); status != http.StatusUnsupportedMediaType || answer["error"] != want {
			t.Errorf("%s, zstd: got %d %v", nsid, status, answer)
		}
	}
}

// The size limit applies to the decompressed body.
func TestCompressedBodyLimit(t *testing.T) { // not parallel, because it measures
	h := newHold(t, func(cfg *Config) { cfg.BlobLimit, cfg.ImportLimit = 50_000, 60_000 })
	h.Token = h.token()
	for encoding := range compressors {
		large, small := compressed(t, encoding, strings.Repeat(" ", 20<<20)), compressed(t, encoding, strings.Repeat(" ", 4<<20))
		for nsid, most := range h.bodies() {
			bomb := large
			if nsid == loginMethod {
				bomb = small // is within the limit while compressed
			}
			r := h.Request("POST", "/xrpc/"+nsid, bomb)
			r.Header.Set("Content-Type", mediaTypeOf(nsid))
			r.Header.Set("Content-Encoding", encoding)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			resp, body := h.Do(r)
			runtime.ReadMemStats(&after)
			if nsid != "com.atproto.repo.importRepo" && resp.StatusCode != 413 || resp.StatusCode == 200 {
				t.Errorf("%s, %s, limit %d: got %d %s", encoding, nsid, most, resp.StatusCode, body)
			}
			if got := after.TotalAlloc - before.TotalAlloc; got > 10<<20 {
				t.Errorf("%s, %s: allocated %d bytes", encoding, nsid, got)
			}
		}
	}
}
