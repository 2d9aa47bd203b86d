package hold

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

func (h *testHold) didDoc() (doc map[string]any) {
	h.Helper()
	resp, body := h.Do(h.Request("GET", "/.well-known/did.json", ""))
	if err := json.Unmarshal(body, &doc); err != nil || resp.StatusCode != 200 {
		h.Fatalf("did.json: %d %s %v", resp.StatusCode, body, err)
	}
	return doc
}

func TestWellKnown(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	doc := h.didDoc()
	service := doc["service"].([]any)[0].(map[string]any)
	if doc["id"] != h.DID || service["id"] != "#atproto_pds" || service["type"] != "AtprotoPersonalDataServer" || service["serviceEndpoint"] != "https://"+testHost {
		t.Errorf("got %v", doc)
	}
	if aka := doc["alsoKnownAs"].([]any); len(aka) != 1 || aka[0] != "at://"+testHost {
		t.Errorf("got %v", aka)
	}
	h.publicKey()
	resp, body := h.Do(h.Request("GET", "/.well-known/atproto-did", ""))
	if string(body) != h.DID || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
		t.Errorf("got %q %v", body, resp.Header)
	}
	for verb, want := range map[string]int{"POST": 405, "OPTIONS": 204, "HEAD": 200, "GET": 200} {
		for _, path := range []string{"/.well-known/did.json", "/.well-known/atproto-did"} {
			resp, _ := h.Do(h.Request(verb, path, ""))
			if resp.StatusCode != want || resp.Header.Get("Access-Control-Allow-Origin") != "*" || (verb == "OPTIONS") != (resp.Header.Get("Access-Control-Allow-Methods") != "") {
				t.Errorf("%s %s: got %d %v", verb, path, resp.StatusCode, resp.Header)
			}
		}
	}
	if resp, _ := h.Do(h.Request("GET", "/other", "")); resp.StatusCode != 404 {
		t.Errorf("other path: got %d", resp.StatusCode)
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	if answer := h.Want("GET", "_health", "", 200, "", ""); answer["version"] != "test" {
		t.Errorf("got %v", answer)
	}
	if err := h.repo.Close(); err != nil {
		t.Fatal(err)
	}
	if status, answer := h.Call("GET", "_health", ""); status != 503 || answer["version"] != "test" {
		t.Errorf("closed: got %d %v", status, answer)
	}
	h.Want("GET", "com.atproto.sync.getRepo?did=%", "", 503, "ServiceUnavailable", "shutting down")
	h.Want("GET", get+"?repo=%&collection="+coll+"&rkey=k", "", 503, "ServiceUnavailable", "shutting down")
}

func TestMethods(t *testing.T) {
	t.Parallel()
	h := loggedIn(t)
	for _, method := range []string{"sync.requestCrawl", "sync.notifyOfUpdate", "sync.listReposByCollection", "sync.listHosts", "sync.getHostStatus"} {
		for _, verb := range []string{"GET", "POST"} {
			h.Want(verb, "com.atproto."+method, "", 501, "MethodNotImplemented", "unsupported method com.atproto."+method+": a relay serves it")
		}
	}
	h.Want("GET", "com.example.unknown", "", 501, "MethodNotImplemented", "unsupported method com.example.unknown")
	h.Want("GET", "nothing", "", 400, "InvalidRequest", "invalid method name")
	h.Want("GET", "", "", 400, "InvalidRequest", "invalid method name")
	h.Want("GET", apply, "", 400, "InvalidRequest", "Incorrect HTTP method (GET) expected POST")
	h.Want("POST", get, "{}", 400, "InvalidRequest", "Incorrect HTTP method (POST) expected GET")
	h.Want("DELETE", get, "", 400, "InvalidRequest", "Incorrect HTTP method (DELETE) expected GET")
	h.Want("POST", "_health", "{}", 400, "InvalidRequest", "Incorrect HTTP method")
}

func TestEncodings(t *testing.T) {
	t.Parallel()
	h := loggedIn(t)
	for _, c := range []struct{ header, value, want string }{
		{"Content-Type", "text/plain", "Wrong request encoding (Content-Type): text/plain"},
		{"Content-Type", "", "Content-Type) required"},
		{"Content-Encoding", "gzip", "does not match its Content-Encoding"},
		{"Content-Encoding", "deflate", "does not match its Content-Encoding"},
	} {
		r := h.Request("POST", "/xrpc/"+apply, strings.ReplaceAll(writes(`create k {}`), "%", h.DID))
		r.Header.Set(c.header, c.value)
		if resp, body := h.Do(r); resp.StatusCode != 400 || !strings.Contains(string(body), c.want) {
			t.Errorf("%s %q: got %d %s", c.header, c.value, resp.StatusCode, body)
		}
	}
	r := h.Request("POST", "/xrpc/"+apply, strings.ReplaceAll(writes(`create k {}`), "%", h.DID))
	r.Header.Set("Content-Type", "application/json; charset=utf-8")
	if resp, body := h.Do(r); resp.StatusCode != 200 {
		t.Errorf("with charset: got %d %s", resp.StatusCode, body)
	}
}

func TestBodyLimit(t *testing.T) {
	t.Parallel()
	h := loggedIn(t)
	body := func(size int) string {
		frame := len(strings.ReplaceAll(writes(`create k {"t":""}`), "%", h.DID))
		return strings.ReplaceAll(writes(`create k {"t":"`+strings.Repeat("x", size-frame)+`"}`), "%", h.DID)
	}
	h.Want("POST", apply, body(xrpc.MaxInput+1), 413, "PayloadTooLargeError", "request entity too large")
	// The same without a Content-Length.
	r := h.Request("POST", "/xrpc/"+apply, body(xrpc.MaxInput+1))
	r.ContentLength = -1
	if resp, answer := h.Do(r); resp.StatusCode != 413 || !bytes.Contains(answer, []byte("PayloadTooLargeError")) {
		t.Errorf("chunked: got %d %s", resp.StatusCode, answer)
	}
	h.Want("POST", apply, body(xrpc.MaxInput), 200, "", "")
}

// A client that stalls gets a response in time, whether its body is read or not.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	h := loggedIn(t)
	h.server.rpc.BodyTimeout = 100 * time.Millisecond
	for name, header := range map[string]string{"read": "Authorization: Bearer " + h.Token + "\r\n", "refused": ""} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(h.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, err = conn.Write([]byte("POST /xrpc/" + apply + " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + header + "Content-Length: 100\r\n\r\n{"))
		if err != nil {
			t.Fatal(err)
		}
		var answer bytes.Buffer
		if _, err := answer.ReadFrom(conn); err != nil || !strings.Contains(answer.String(), "HTTP/1.1 40") {
			t.Errorf("%s: got %q, %v", name, answer.String(), err)
		}
	}
}

// The time limit of a body does not apply to later requests on the connection.
func TestDeadlineIsReset(t *testing.T) {
	t.Parallel()
	h := loggedIn(t)
	h.server.rpc.BodyTimeout = 50 * time.Millisecond
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			time.Sleep(150 * time.Millisecond)
			_, _ = w.Write([]byte("done"))
			return
		}
		h.server.ServeHTTP(w, r)
	}))
	t.Cleanup(slow.Close)
	h.URL = slow.URL
	h.Want("POST", apply, writes(`create k {}`), 200, "", "")
	if resp, body := h.Do(h.Request("GET", "/slow", "")); resp.StatusCode != 200 || string(body) != "done" {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	h := loggedIn(t)
	r := h.Request("OPTIONS", "/xrpc/"+apply, "")
	r.Header.Set("Origin", "https://app.example.com")
	r.Header.Set("Access-Control-Request-Method", "POST")
	resp, _ := h.Do(r)
	if resp.StatusCode != 204 || resp.Header.Get("Access-Control-Allow-Origin") != "*" ||
		!strings.Contains(resp.Header.Get("Access-Control-Allow-Headers"), "Authorization") ||
		!strings.Contains(resp.Header.Get("Access-Control-Allow-Methods"), "POST") {
		t.Errorf("preflight: got %d %v", resp.StatusCode, resp.Header)
	}
	resp, _ = h.Do(h.Request("GET", "/xrpc/com.atproto.server.getSession", ""))
	if resp.Header.Get("Cache-Control") != "no-store" || resp.Header.Get("X-Content-Type-Options") != "nosniff" || resp.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("got %v", resp.Header)
	}
	resp, body := h.Do(h.Request("HEAD", "/xrpc/com.atproto.sync.getLatestCommit?did="+h.DID, ""))
	if resp.StatusCode != 200 || len(body) > 0 || resp.ContentLength <= 0 {
		t.Errorf("HEAD: got %d, %d bytes, length %d", resp.StatusCode, len(body), resp.ContentLength)
	}
	if resp, body := h.Do(h.Request("HEAD", "/xrpc/com.atproto.sync.getRepo?did="+h.DID, "")); resp.StatusCode != 200 || len(body) > 0 {
		t.Errorf("HEAD: got %d, %d bytes", resp.StatusCode, len(body))
	}
}

func TestMissingConfig(t *testing.T) {
	t.Parallel()
	if _, err := New(Config{}); err == nil {
		t.Error("a server without an identity was created")
	}
}

func TestMethodsHaveSchemas(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	for nsid, m := range h.server.rpc.Methods {
		if _, err := lexicon.Params(nsid, nil); err != nil && strings.Contains(err.Error(), "no schema") {
			t.Error(err)
		}
		if lexicon.HasInput(nsid) && m.Verb != http.MethodPost {
			t.Errorf("%s has a body but is a %s", nsid, m.Verb)
		}
	}
}
