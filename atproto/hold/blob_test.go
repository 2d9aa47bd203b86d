package hold

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

const png = "\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00\x1f\x15\xc4\x89"

// upload uploads a blob and returns it as JSON, and its CID.
func (h *testHold) upload(content, contentType string) (ref string, id string) {
	h.Helper()
	r := h.Request("POST", "/xrpc/com.atproto.repo.uploadBlob", content)
	r.Header.Set("Content-Type", contentType)
	resp, body := h.Do(r)
	var answer struct {
		Blob struct {
			Type string `json:"$type"`
			Ref  struct {
				Link string `json:"$link"`
			} `json:"ref"`
			MimeType string `json:"mimeType"`
			Size     int    `json:"size"`
		} `json:"blob"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || resp.StatusCode != 200 {
		h.Fatalf("upload: got %d %s %v", resp.StatusCode, body, err)
	}
	sum := sha256.Sum256([]byte(content))
	hash, err := multihash.Encode(sum[:], multihash.SHA2_256)
	if err != nil {
		h.Fatal(err)
	}
	b := answer.Blob
	if want := cid.NewCidV1(cid.Raw, hash).String(); b.Type != "blob" || b.Ref.Link != want || b.Size != len(content) {
		h.Errorf("upload: got %s, want %s of %d bytes", body, want, len(content))
	}
	return fmt.Sprintf(`{"$type":"blob","ref":{"$link":%q},"mimeType":%q,"size":%d}`, b.Ref.Link, b.MimeType, b.Size), b.Ref.Link
}

func TestBlobs(t *testing.T) {
	t.Parallel()
	h := loggedIn(t)
	ref, id := h.upload(png, "text/html")
	if !strings.Contains(ref, "image/png") {
		t.Errorf("got %s, want the type of the content", ref)
	}
	const getBlob, list = "com.atproto.sync.getBlob?did=%&cid=", "com.atproto.sync.listBlobs?did=%"
	cids := func(query string) string {
		return fmt.Sprint(h.Want("GET", list+query, "", 200, "", "")["cids"])
	}
	h.Want("GET", getBlob+id, "", 400, "InvalidRequest", "Blob not found") // no record refers to it
	if got := cids(""); got != "[]" {
		t.Errorf("listBlobs: got %s", got)
	}
	before := h.repo.Head()
	h.Want("POST", apply, writes(`create a {"v":`+ref+`}`), 200, "", "")
	resp, body := h.Do(h.Request("GET", "/xrpc/"+strings.ReplaceAll(getBlob, "%", h.DID)+id, ""))
	if resp.StatusCode != 200 || string(body) != png || resp.Header.Get("Content-Type") != "image/png" || resp.ContentLength != int64(len(png)) ||
		resp.Header.Get("Content-Security-Policy") != "default-src 'none'; sandbox" || resp.Header.Get("X-Content-Type-Options") != "nosniff" ||
		resp.Header.Get("Content-Disposition") != `attachment; filename="`+id+`"` {
		t.Errorf("got %d %v %q", resp.StatusCode, resp.Header, body)
	}
	resp, body = h.Do(h.Request("HEAD", "/xrpc/"+strings.ReplaceAll(getBlob, "%", h.DID)+id, ""))
	if resp.StatusCode != 200 || len(body) > 0 || resp.ContentLength != int64(len(png)) {
		t.Errorf("HEAD: got %d, %d", resp.StatusCode, resp.ContentLength)
	}
	after := h.repo.Head()
	for query, want := range map[string]string{
		"": id, "&since=" + before.Rev: id, "&since=" + after.Rev: "", "&limit=1": id, "&cursor=" + id: "",
		"&earliest=" + before.Commit.String(): id, "&latest=" + after.Commit.String(): id,
	} {
		if got := cids(query); got != "["+want+"]" {
			t.Errorf("listBlobs%s: got %s, want %s", query, got, want)
		}
	}
	h.Want("GET", list+"&cursor=x", "", 400, "InvalidRequest", "Malformed cursor")
	h.Want("GET", list+"&limit=1001", "", 400, "InvalidRequest", "at $.limit")
	h.Want("GET", list+"&latest="+before.Commit.String(), "", 400, "InvalidRequest", "kept as of its head only")
	h.Want("GET", "com.atproto.sync.listBlobs?did=did:web:other.example.com", "", 400, "RepoNotFound", "")
	h.Want("GET", "com.atproto.sync.getBlob?did=did:web:other.example.com&cid="+id, "", 400, "RepoNotFound", "")
	h.Want("GET", getBlob+"zzz", "", 400, "InvalidRequest", "at $.cid")
	h.Want("GET", "com.atproto.repo.listMissingBlobs", "", 200, "", "")

	h.Want("POST", apply, writes(`delete a`), 200, "", "")
	h.Want("GET", getBlob+id, "", 400, "InvalidRequest", "Blob not found")
	h.Want("POST", apply, writes(`create b {"v":`+strings.Replace(ref, "image/png", "image/gif", 1)+`}`), 400, "InvalidMimeType", "Expected: image/png, Got: image/gif")
	h.Want("POST", apply, writes(`create b {"v":`+strings.Replace(ref, `"size":33`, `"size":34`, 1)+`}`), 400, "InvalidSize", "Expected: 33, Got: 34")
	h.Want("POST", apply, writes(`create b {"v":{"cid":"`+id+`","mimeType":"image/png"}}`), 400, "InvalidRequest", "Legacy blobs are not allowed ("+id+")")
	h.Want("POST", put, `{"repo":"%","collection":"`+coll+`","rkey":"c","record":{"v":`+ref+`}}`, 200, "", "")
	if resp, _ := h.Do(h.Request("GET", "/xrpc/"+strings.ReplaceAll(getBlob, "%", h.DID)+id, "")); resp.StatusCode != 200 {
		t.Errorf("a new reference: got %d", resp.StatusCode)
	}
}

func TestUploadLimits(t *testing.T) {
	t.Parallel()
	h := newHold(t, func(cfg *Config) { cfg.BlobLimit = 1000 })
	const method = "com.atproto.repo.uploadBlob"
	h.Want("POST", method, "x", 401, "AuthMissing", "")
	h.Token = h.token()
	h.Want("POST", method, strings.Repeat("x", 1001), 413, "PayloadTooLarge", "request entity too large")
	r := h.Request("POST", "/xrpc/"+method, strings.Repeat("x", 1001))
	r.ContentLength = -1 // no Content-Length
	if resp, body := h.Do(r); resp.StatusCode != 413 {
		t.Errorf("chunked: got %d %s", resp.StatusCode, body)
	}
	h.upload(strings.Repeat("x", 1000), "text/plain")
	h.upload("", "text/plain")
	for name, value := range map[string]string{"Content-Type": "", "Content-Encoding": "gzip"} {
		r := h.Request("POST", "/xrpc/"+method, "x")
		r.Header.Set(name, value)
		if resp, body := h.Do(r); resp.StatusCode/100 != 4 {
			t.Errorf("%s %q: got %d %s", name, value, resp.StatusCode, body)
		}
	}
	for range maxUploads {
		h.server.uploads <- struct{}{}
	}
	if resp, _ := h.Do(h.Request("POST", "/xrpc/"+method, "x")); resp.StatusCode != 429 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("no slot: got %d", resp.StatusCode)
	}
}

// The slot of an interrupted upload is free again.
func TestInterruptedUpload(t *testing.T) {
	t.Parallel()
	h := loggedIn(t)
	h.server.rpc.BodyTimeout = 100 * time.Millisecond
	for _, disconnect := range []bool{false, true} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(h.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "POST /xrpc/com.atproto.repo.uploadBlob HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nAuthorization: Bearer %s\r\nContent-Length: 100\r\n\r\nhalf", h.Token)
		if disconnect {
			conn.Close()
			continue
		}
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		var answer bytes.Buffer
		if _, err := answer.ReadFrom(conn); err != nil || !strings.Contains(answer.String(), "HTTP/1.1 400") || !strings.Contains(answer.String(), "too early or took too long") {
			t.Errorf("got %q, %v", answer.String(), err)
		}
	}
	for range 100 {
		if len(h.server.uploads) == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if n := len(h.server.uploads); n != 0 {
		t.Errorf("%d slots are still taken", n)
	}
	h.upload("whole", "text/plain")
}

// A slow body is accepted as long as each read is in time.
func TestSlowUpload(t *testing.T) {
	t.Parallel()
	h := loggedIn(t)
	h.server.rpc.BodyTimeout = 300 * time.Millisecond
	r := h.Request("POST", "/xrpc/com.atproto.repo.uploadBlob", "")
	r.Body = http.NoBody
	slow, err := http.NewRequest("POST", r.URL.String(), &slowBody{left: 10})
	if err != nil {
		t.Fatal(err)
	}
	slow.Header = r.Header
	slow.Header.Set("Content-Type", "text/plain")
	if resp, body := h.Do(slow); resp.StatusCode != 200 {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
}

// slowBody sends left bytes, one every 50 ms.
type slowBody struct{ left int }

func (d *slowBody) Read(b []byte) (int, error) {
	if d.left == 0 {
		return 0, io.EOF
	}
	d.left--
	time.Sleep(50 * time.Millisecond)
	b[0] = 'x'
	return 1, nil
}

func TestMediaType(t *testing.T) {
	t.Parallel()
	for head, want := range map[string]string{
		"":                                   "",
		"plain text":                         "",
		"<html><script>":                     "",
		`{"a":1}`:                            "",
		png:                                  "image/png",
		"\xff\xd8\xff\xe0":                   "image/jpeg",
		"GIF89a":                             "image/gif",
		"RIFF\x00\x00\x00\x00WEBPVP8 ":       "image/webp",
		"RIFF\x00\x00\x00\x00WAVEfmt ":       "audio/wav",
		"RIFF\x00\x00\x00\x00none":           "",
		"\x00\x00\x00\x18ftypavif\x00\x00":   "image/avif",
		"\x00\x00\x00\x18ftypheic\x00\x00":   "image/heic",
		"\x00\x00\x00\x18ftypisom\x00\x00":   "video/mp4",
		"\x00\x00\x00\x18ftypqt  \x00\x00":   "video/quicktime",
		"\x1aE\xdf\xa3\x9fB\x86\x81\x01webm": "video/webm",
		"\x1aE\xdf\xa3\x9fB\x86\x81\x01":     "video/matroska",
		"%PDF-1.7":                           "application/pdf",
		"PK\x03\x04":                         "application/zip",
		"ftyp":                               "",
	} {
		if got := mediaType([]byte(head)); got != want {
			t.Errorf("%q: got %q, want %q", head, got, want)
		}
	}
}

func FuzzMediaType(f *testing.F) {
	f.Add([]byte(png))
	f.Add([]byte("\x00\x00\x00\x18ftypmif1"))
	f.Fuzz(func(_ *testing.T, head []byte) { mediaType(head) })
}
