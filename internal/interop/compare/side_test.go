package compare

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/interop/pds"
)

// side is one of the two servers, with the variables of rows.
type side struct {
	*pds.Server
	vars map[string]string
	http *http.Client

	activate func(active bool) error // activates or deactivates the account
}

func newSide(t *testing.T, s *pds.Server) *side {
	t.Helper()
	access, refresh, err := s.Login(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sd := &side{Server: s, http: &http.Client{Timeout: time.Minute}, vars: map[string]string{
		"did": s.DID, "handle": pds.Handle, "password": s.Password,
		"access": access, "refresh": refresh,
	}}
	sd.tokens(t)
	sd.head(t)
	return sd
}

// tokens creates variants of the server's own tokens, each with one change and a valid
// signature. The server must refuse most of them.
func (sd *side) tokens(t *testing.T) {
	t.Helper()
	hour := func(h int) int64 { return time.Now().Add(time.Duration(h) * time.Hour).Unix() }
	for _, one := range []struct {
		name           string
		of             string
		header, claims map[string]any
	}{
		{name: "forged", of: "access"},
		{name: "expired", of: "access", claims: map[string]any{"iat": hour(-3), "exp": hour(-1)}},
		{name: "expired refresh", of: "refresh", claims: map[string]any{"iat": hour(-3), "exp": hour(-1)}},
		{name: "no exp", of: "access", claims: map[string]any{"exp": nil}},
		{name: "wrong aud", of: "access", claims: map[string]any{"aud": "did:web:elsewhere.example"}},
		{name: "no aud", of: "access", claims: map[string]any{"aud": nil}},
		{name: "wrong sub", of: "access", claims: map[string]any{"sub": "did:web:elsewhere.example"}},
		{name: "no sub", of: "access", claims: map[string]any{"sub": nil}},
		{name: "bad scope", of: "access", claims: map[string]any{"scope": "com.atproto.nothing"}},
		{name: "refresh in the scope", of: "access", claims: map[string]any{"scope": "com.atproto.refresh"}},
		{name: "alg none", of: "access", header: map[string]any{"alg": "none"}},
		{name: "HS512", of: "access", header: map[string]any{"alg": "HS512"}},
		{name: "other typ", of: "access", header: map[string]any{"typ": "refresh+jwt"}},
		{name: "service", of: "access", claims: map[string]any{"iss": sd.DID, "lxm": applyWrites, "scope": nil}},
	} {
		forged, err := sd.Forge(sd.vars[one.of], one.header, one.claims)
		if err != nil {
			t.Fatal(err)
		}
		sd.vars[one.name] = forged
	}
	sd.vars["in 30 minutes"] = strconv.FormatInt(time.Now().Add(30*time.Minute).Unix(), 10)
	sd.vars["in 3 hours"] = strconv.FormatInt(hour(3), 10)
	// A changed signature: its first character, of which all bits are significant.
	payload, signature := sd.vars["access"], ""
	payload, signature = payload[:strings.LastIndexByte(payload, '.')+1], payload[strings.LastIndexByte(payload, '.')+1:]
	sd.vars["tampered"] = payload + map[bool]string{true: "B", false: "A"}[signature[0] == 'A'] + signature[1:]
}

func (sd *side) fill(text string) string {
	if !strings.Contains(text, "{") {
		return text
	}
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(sd.vars)) {
		pairs = append(pairs, "{"+name+"}", sd.vars[name])
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// reply is the response of a server.
type reply struct {
	answer
	message string
	header  http.Header
	body    []byte
	json    any  // the body, if it is JSON
	moved   bool // the head changed
}

// request returns the verb, path and header of a row's request.
func (sd *side) request(r row) (verb, path string, header http.Header) {
	verb, path, header = http.MethodGet, r.get, http.Header{}
	if r.post != "" {
		verb, path = http.MethodPost, r.post
		header.Set("Content-Type", cmp.Or(r.contentType, "application/json"))
	}
	if r.contentType == "none" {
		header.Del("Content-Type")
	}
	verb = cmp.Or(r.verb, verb)
	switch {
	case r.as == "anonymous", r.as == "" && r.post == "":
	case r.as == "":
		header.Set("Authorization", "Bearer "+sd.vars["access"])
	default:
		header.Set("Authorization", sd.fill(r.as))
	}
	if r.header["X-Ratelimit-Bypass"] == "" {
		header.Set("X-Ratelimit-Bypass", pds.BypassKey)
	}
	for name, value := range r.header {
		header.Set(name, sd.fill(value))
	}
	return verb, sd.fill(path), header
}

// ask sends a row's request and reports whether the head changed.
func (sd *side) ask(t *testing.T, r row) reply {
	t.Helper()
	before := sd.vars["head"]
	verb, path, header := sd.request(r)
	body := sd.fill(r.body)
	if r.compress {
		body = compressed(t, body)
	}
	got, err := sd.send(t, verb, path, header, body)
	if err != nil {
		t.Fatalf("%s: %v", sd.Name, err)
	}
	sd.head(t)
	got.moved = sd.vars["head"] != before
	if got.status == http.StatusOK {
		for name, path := range r.save {
			if sd.vars[name] = fmt.Sprint(member(got.json, path)); sd.vars[name] == "<nil>" {
				t.Errorf("%s: no %s in %.300s", sd.Name, path, got.body)
			}
		}
	}
	return got
}

func compressed(t *testing.T, text string) string {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func (sd *side) send(t *testing.T, verb, path string, header http.Header, body string) (reply, error) {
	if !strings.HasPrefix(path, "/") {
		path = "/xrpc/" + path
	}
	var content io.Reader
	if body != "" {
		content = strings.NewReader(body)
	}
	q, err := http.NewRequestWithContext(t.Context(), verb, sd.URL+path, content)
	if err != nil {
		return reply{}, err
	}
	q.Header = header
	res, err := sd.http.Do(q)
	if err != nil {
		return reply{}, err
	}
	defer res.Body.Close()
	got := reply{answer: answer{status: res.StatusCode}, header: res.Header}
	if got.body, err = io.ReadAll(res.Body); err != nil {
		return reply{}, err
	}
	dec := json.NewDecoder(bytes.NewReader(got.body))
	dec.UseNumber()
	if verb != http.MethodHead && strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") {
		if err := dec.Decode(&got.json); err != nil {
			return reply{}, fmt.Errorf("response is not JSON: %w: %.200s", err, got.body)
		}
	}
	if res.StatusCode >= 400 {
		got.err, _ = member(got.json, "error").(string)
		got.message, _ = member(got.json, "message").(string)
	}
	return got, nil
}

// head updates the variables head and rev. It uses a session of the account, which is
// required while it is deactivated.
func (sd *side) head(t *testing.T) {
	t.Helper()
	header := http.Header{"X-Ratelimit-Bypass": {pds.BypassKey}, "Authorization": {"Bearer " + sd.vars["access"]}}
	got, err := sd.send(t, http.MethodGet, "com.atproto.sync.getLatestCommit?did="+url.QueryEscape(sd.DID), header, "")
	if err != nil || got.status != http.StatusOK {
		t.Fatalf("%s: getLatestCommit: %v %s %v", sd.Name, got.answer, got.body, err)
	}
	sd.vars["head"], sd.vars["rev"] = member(got.json, "cid").(string), member(got.json, "rev").(string)
}

// member returns the value at a path such as "results.0.cid", or nil.
func member(v any, path string) any {
	for name := range strings.SplitSeq(path, ".") {
		switch at := v.(type) {
		case map[string]any:
			v = at[name]
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i >= len(at) {
				return nil
			}
			v = at[i]
		default:
			return nil
		}
	}
	return v
}
