package hold

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/atproto/auth"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

// bodies returns the procedures with an input and the size limits of their bodies.
func (h *testHold) bodies() map[string]int64 {
	limits := map[string]int64{
		loginMethod:                     auth.MaxLogin,
		"com.atproto.repo.uploadBlob":   h.server.blobLimit,
		"com.atproto.repo.importRepo":   h.server.importLimit,
		"com.atproto.repo.applyWrites":  xrpc.MaxInput,
		"com.atproto.repo.createRecord": xrpc.MaxInput,
		"com.atproto.repo.putRecord":    xrpc.MaxInput,
		"com.atproto.repo.deleteRecord": xrpc.MaxInput,
	}
	for nsid, m := range h.server.rpc.Methods {
		if _, known := limits[nsid]; !known && m.Verb == http.MethodPost && lexicon.HasInput(nsid) {
			h.Errorf("%s is missing in this test", nsid)
		}
	}
	return limits
}

func mediaTypeOf(nsid string) string {
	switch nsid {
	case "com.atproto.repo.uploadBlob":
		return "image/png"
	case "com.atproto.repo.importRepo":
		return "application/vnd.ipld.car"
	}
	return "application/json"
}

// Every procedure limits its body, with and without a Content-Length.
func TestOversizedBodies(t *testing.T) {
	t.Parallel()
	h := newHold(t, func(cfg *Config) { cfg.BlobLimit, cfg.ImportLimit = 50_000, 60_000 })
	h.Token = h.token()
	h.fill(4, 20_000)
	car := h.raw("com.atproto.sync.getRepo?did=%")
	head := h.repo.Head()
	for nsid, most := range h.bodies() {
		body := strings.Repeat(" ", int(most)+1) // the beginning of valid JSON
		if nsid == "com.atproto.repo.importRepo" {
			body = string(car)
		}
		for _, declared := range []bool{true, false} {
			r := h.Request("POST", "/xrpc/"+nsid, body)
			r.Header.Set("Content-Type", mediaTypeOf(nsid))
			if !declared {
				r.ContentLength = -1
			}
			resp, body := h.Do(r)
			var answer struct{ Error, Message string }
			if err := json.Unmarshal(body, &answer); err != nil || resp.StatusCode != 413 ||
				!strings.HasPrefix(answer.Error, "PayloadTooLarge") || answer.Message != "request entity too large" {
				t.Errorf("%s, Content-Length %v: got %d %s", nsid, declared, resp.StatusCode, body)
			}
		}
	}
	if h.repo.Head() != head {
		t.Error("the head changed")
	}
}

// Every procedure limits the time for its body.
func TestStalledBodies(t *testing.T) {
	t.Parallel()
	h := loggedIn(t)
	h.server.rpc.BodyTimeout = 100 * time.Millisecond
	for nsid := range h.bodies() {
		conn, err := net.Dial("tcp", strings.TrimPrefix(h.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, err = fmt.Fprintf(conn, "POST /xrpc/%s HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nAuthorization: Bearer %s\r\nContent-Length: 1000\r\n\r\n{", nsid, mediaTypeOf(nsid), h.Token)
		if err != nil {
			t.Fatal(err)
		}
		var answer bytes.Buffer
		if _, err := answer.ReadFrom(conn); err != nil || !strings.HasPrefix(answer.String(), "HTTP/1.1 400") || !strings.Contains(answer.String(), "took too long") {
			t.Errorf("%s: got %q, %v", nsid, answer.String(), err)
		}
	}
}

// The body of an unauthorized request is not read.
func TestUnauthorizedBodies(t *testing.T) {
	t.Parallel()
	h := newHold(t)
	for nsid := range h.bodies() {
		if nsid == loginMethod {
			continue
		}
		for name, header := range map[string]string{"AuthMissing": "", "InvalidToken": "Bearer x.y.z"} {
			r := h.Request("POST", "/xrpc/"+nsid, "")
			body := &unreadBody{}
			r.Body, r.ContentLength = body, -1
			r.Header.Set("Content-Type", mediaTypeOf(nsid))
			r.Header.Set("Expect", "100-continue")
			if header != "" {
				r.Header.Set("Authorization", header)
			}
			client := &http.Client{Transport: &http.Transport{ExpectContinueTimeout: time.Minute, DisableKeepAlives: true}}
			resp, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			var answer struct{ Error string }
			err = json.NewDecoder(resp.Body).Decode(&answer)
			resp.Body.Close()
			if err != nil || resp.StatusCode/100 != 4 || answer.Error != name || body.read {
				t.Errorf("%s: got %d %s, body read: %v", nsid, resp.StatusCode, answer.Error, body.read)
			}
		}
	}
}

// unreadBody records whether it was read.
type unreadBody struct{ read bool }

func (u *unreadBody) Read(b []byte) (int, error) { u.read = true; return len(b), nil }
func (u *unreadBody) Close() error               { return nil }
