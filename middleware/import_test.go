package middleware

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/configuration"

	"github.com/tidings-dev/tidings/atproto/auth"
	"github.com/tidings-dev/tidings/atproto/hold"
	"github.com/tidings-dev/tidings/internal/race"
)

// A repo of many megabytes can be exported and imported through the handlers around
// our routes.
func TestLargeImport(t *testing.T) {
	race.Skip(t, "its requests run one after another")
	t.Parallel()
	data := t.TempDir()
	did, err := hold.Init(hold.InitConfig{Dir: filepath.Join(data, "hold"), KeyFile: filepath.Join(data, "hold.key"), Hostname: "localhost:5000", Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	password, err := auth.SetPassword(filepath.Join(data, "hold.password"))
	if err != nil {
		t.Fatal(err)
	}
	config := minimalConfig("")
	config.Middleware = map[string][]configuration.Middleware{"repository": {{Name: Name, Options: configuration.Parameters{
		"data": data, "hold": map[string]any{"hostname": "localhost:5000", "reserve": "1MiB", "login": true},
	}}}}
	h, err := OpenHold(config)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close(t.Context())
	server := httptest.NewServer(h.Routes())
	defer server.Close()
	access := ""
	request := func(verb, method, contentType string, body []byte) []byte {
		t.Helper()
		r, err := http.NewRequest(verb, server.URL+"/xrpc/"+method, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", contentType)
		if access != "" {
			r.Header.Set("Authorization", "Bearer "+access)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d %.200s %v", method, resp.StatusCode, answer, err)
		}
		return answer
	}
	var session struct{ AccessJWT string }
	login := request("POST", "com.atproto.server.createSession", "application/json", fmt.Appendf(nil, `{"identifier":%q,"password":%q}`, did, password))
	if err := json.Unmarshal(login, &session); err != nil {
		t.Fatal(err)
	}
	access = session.AccessJWT
	for i := range 10 {
		request("POST", "com.atproto.repo.createRecord", "application/json", fmt.Appendf(nil,
			`{"repo":%q,"collection":"com.example.note","rkey":"n%d","record":{"$type":"com.example.note","text":"%d %s"}}`, did, i, i, strings.Repeat("x", 900_000)))
	}
	car := request("GET", "com.atproto.sync.getRepo?did="+url.QueryEscape(did), "", nil)
	if len(car) <= 8<<20 {
		t.Fatalf("the repo has %d bytes", len(car))
	}
	request("POST", "com.atproto.repo.importRepo", "application/vnd.ipld.car", car)
}
