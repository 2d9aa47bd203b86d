package stats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/notifier/counts"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

// fakeSource is a source that returns err, if it is set.
type fakeSource struct {
	mu    sync.Mutex
	err   error
	calls int
	list  []counts.Totals
	tags  map[string]map[counts.Class]int64
}

func (f *fakeSource) ask() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	return f.err
}

func (f *fakeSource) Repositories(context.Context) ([]counts.Totals, error) {
	return f.list, f.ask()
}

func (f *fakeSource) Repository(_ context.Context, name string) (counts.Totals, map[string]map[counts.Class]int64, bool, error) {
	for _, t := range f.list {
		if t.Name == name {
			return t, f.tags, true, f.ask()
		}
	}
	return counts.Totals{}, nil, false, f.ask()
}

func (f *fakeSource) Daily(_ context.Context, name string, days int) ([]counts.Day, error) {
	list := make([]counts.Day, days)
	for i := range list {
		list[i].Date = noon.AddDate(0, 0, i-days+1).Format(time.DateOnly)
		list[i].Counts = map[counts.Class]int64{}
	}
	if name == "oss/app" {
		list[days-1].Counts[counts.Pull] = 3
	}
	return list, f.ask()
}

func repositoryTotals(name string, pulls, pushes int64) counts.Totals {
	t := counts.Totals{Name: name, Counts: map[counts.Class]int64{}}
	if pulls > 0 {
		t.Counts[counts.Pull], t.LastPull = pulls, noon
	}
	if pushes > 0 {
		t.Counts[counts.Push], t.LastPush = pushes, noon
	}
	return t
}

func fixture(t *testing.T, change func(*Config)) (http.Handler, *fakeSource) {
	t.Helper()
	source := &fakeSource{
		list: []counts.Totals{
			repositoryTotals("oss/app", 30, 2), repositoryTotals("oss/b/daily", 7, 0), repositoryTotals("oss/tools/cli", 30, 5),
			repositoryTotals("oss/z", 1, 9), repositoryTotals("secret/app", 99, 99),
		},
		tags: map[string]map[counts.Class]int64{
			"v1": {counts.Pull: 10, counts.Push: 1}, "v2": {counts.Pull: 20, counts.Push: 1}, "old": {counts.Pull: 10},
		},
	}
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("secret-token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		Source:    source,
		Visible:   func(name string) bool { return strings.HasPrefix(name, "oss/") },
		TokenFile: file,
		Now:       func() time.Time { return noon },
	}
	if change != nil {
		change(&cfg)
	}
	return New(cfg), source
}

func get(t *testing.T, h http.Handler, path, token string) (int, map[string]any) {
	t.Helper()
	q := httptest.NewRequest("GET", Prefix+path, nil)
	if token != "" {
		q.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, q)
	if got := w.Header().Get("Content-Type"); got != "application/json" {
		t.Errorf("%s: Content-Type %q", path, got)
	}
	if got := w.Header().Get("Cache-Control"); got != "no-store" {
		t.Errorf("%s: Cache-Control %q", path, got)
	}
	var body map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
		t.Fatalf("%s: %v in %q", path, err, w.Body)
	}
	return w.Code, body
}

func names(body map[string]any) []string {
	list := []string{}
	for _, r := range body["repositories"].([]any) {
		list = append(list, r.(map[string]any)["name"].(string))
	}
	return list
}

func TestRepositories(t *testing.T) {
	t.Parallel()
	h, _ := fixture(t, nil)
	for query, want := range map[string]string{
		"":                             "oss/app oss/b/daily oss/tools/cli oss/z",
		"?order=desc":                  "oss/z oss/tools/cli oss/b/daily oss/app",
		"?sort=pulls":                  "oss/app oss/tools/cli oss/b/daily oss/z",
		"?sort=pulls&order=asc":        "oss/z oss/b/daily oss/app oss/tools/cli",
		"?sort=pushes":                 "oss/z oss/tools/cli oss/app oss/b/daily",
		"?sort=pulls&limit=2":          "oss/app oss/tools/cli",
		"?sort=name&order=asc&limit=1": "oss/app",
	} {
		code, body := get(t, h, "repositories"+query, "")
		if got := strings.Join(names(body), " "); code != 200 || got != want {
			t.Errorf("%q: %d %s, want %s", query, code, got, want)
		}
	}
	_, body := get(t, h, "repositories?limit=1", "")
	first := body["repositories"].([]any)[0].(map[string]any)
	for key, want := range map[string]any{"pulls": 30.0, "pushes": 2.0, "lastPull": "2026-03-04T12:00:00Z"} {
		if first[key] != want {
			t.Errorf("%s = %v, want %v", key, first[key], want)
		}
	}
	if _, ok := body["degraded"]; ok {
		t.Error("the response has the member degraded, want none")
	}
}

func TestPages(t *testing.T) {
	t.Parallel()
	h, _ := fixture(t, nil)
	for _, sort := range []string{"name", "pulls", "pushes"} {
		for _, order := range []string{"asc", "desc"} {
			_, all := get(t, h, "repositories?sort="+sort+"&order="+order, "")
			var got []string
			cursor := ""
			for range 10 {
				_, body := get(t, h, "repositories?limit=1&sort="+sort+"&order="+order+"&cursor="+url.QueryEscape(cursor), "")
				got = append(got, names(body)...)
				if cursor, _ = body["cursor"].(string); cursor == "" {
					break
				}
			}
			if !slices.Equal(got, names(all)) {
				t.Errorf("%s %s: pages of one: %v, want %v", sort, order, got, names(all))
			}
		}
	}
}

func TestInvalidQueries(t *testing.T) {
	t.Parallel()
	h, _ := fixture(t, func(c *Config) {
		c.Pushes = func(context.Context, int, bool) ([]Push, error) { return nil, nil }
	})
	_, body := get(t, h, "repositories?limit=1", "")
	for _, path := range []string{
		"repositories?sort=size", "repositories?order=up", "repositories?limit=0", "repositories?limit=1001",
		"repositories?limit=x", "repositories?cursor=!", "repositories?cursor=bnVsbA",
		"repositories?sort=pulls&cursor=" + body["cursor"].(string),
		"repositories/oss/app?limit=-1", "repositories/oss/app/daily?days=0", "repositories/oss/app/daily?days=401",
		"pushes?limit=1001",
	} {
		code, body := get(t, h, path, "")
		if code != 400 || body["error"] != "InvalidRequest" || body["message"] == "" {
			t.Errorf("%s: %d %v", path, code, body)
		}
	}
	for path, want := range map[string]int{"": 404, "nothing": 404, "repositories/": 404} {
		if code, body := get(t, h, path, ""); code != want || body["error"] == nil {
			t.Errorf("%q: %d %v, want %d", path, code, body, want)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("POST", Prefix+"repositories", nil))
	if w.Code != 405 || w.Header().Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %d, Allow %q", w.Code, w.Header().Get("Allow"))
	}
}

func TestRepository(t *testing.T) {
	t.Parallel()
	h, _ := fixture(t, nil)
	code, body := get(t, h, "repositories/oss/tools/cli", "")
	if code != 200 || body["name"] != "oss/tools/cli" || body["pulls"] != 30.0 {
		t.Fatalf("%d %v", code, body)
	}
	var tags []string
	for _, v := range body["tags"].([]any) {
		tag := v.(map[string]any)
		tags = append(tags, fmt.Sprint(tag["tag"], tag["pulls"]))
	}
	if got := strings.Join(tags, " "); got != "v220 old10 v110" {
		t.Errorf("tags %s, want those with the most pulls first", got)
	}
	_, body = get(t, h, "repositories/oss/tools/cli?limit=1", "")
	if len(body["tags"].([]any)) != 1 || body["moreTags"] != true {
		t.Errorf("limit=1: %v, want one tag and moreTags", body)
	}
	if code, body := get(t, h, "repositories/oss/b%2Fdaily", ""); code != 200 || body["name"] != "oss/b/daily" {
		t.Errorf("repository with a name that ends in /daily: %d %v", code, body)
	}
}

func TestDaily(t *testing.T) {
	t.Parallel()
	h, _ := fixture(t, nil)
	code, body := get(t, h, "repositories/oss/app/daily?days=7", "")
	days, _ := body["days"].([]any)
	if code != 200 || len(days) != 7 {
		t.Fatalf("%d %v", code, body)
	}
	if last := days[6].(map[string]any); last["date"] != "2026-03-04" || last["pulls"] != 3.0 {
		t.Errorf("the last day is %v, want 3 pulls on 2026-03-04", last)
	}
	if code, body := get(t, h, "repositories/oss/z/daily", ""); code != 200 || len(body["days"].([]any)) != 30 {
		t.Errorf("30 days without counts: %d %v", code, body)
	}
}

// A private repository looks like one that does not exist.
func TestPrivate(t *testing.T) {
	t.Parallel()
	h, _ := fixture(t, nil)
	for _, suffix := range []string{"", "/daily"} {
		missing, private := httptest.NewRecorder(), httptest.NewRecorder()
		h.ServeHTTP(missing, httptest.NewRequest("GET", Prefix+"repositories/oss/nothing"+suffix, nil))
		h.ServeHTTP(private, httptest.NewRequest("GET", Prefix+"repositories/secret/app"+suffix, nil))
		if private.Code != 404 || missing.Code != 404 || private.Body.String() != missing.Body.String() {
			t.Errorf("private: %d %s, missing: %d %s", private.Code, private.Body, missing.Code, missing.Body)
		}
		if code, _ := get(t, h, "repositories/secret/app"+suffix, "secret-token"); code != 200 {
			t.Errorf("with the token: %d", code)
		}
	}
	if _, body := get(t, h, "repositories?sort=pulls", "secret-token"); names(body)[0] != "secret/app" {
		t.Errorf("with the token: %v, want secret/app first", names(body))
	}
	none, _ := fixture(t, func(c *Config) { c.Visible = nil })
	if _, body := get(t, none, "repositories", ""); len(names(body)) != 0 {
		t.Errorf("with no public repository: %v, want none", names(body))
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	h, _ := fixture(t, nil)
	for _, token := range []string{"secret", "secret-token-", "SECRET-TOKEN"} {
		for _, path := range []string{"repositories", "repositories/oss/app", "repositories/secret/app"} {
			if code, body := get(t, h, path, token); code != 401 || body["error"] != "AuthenticationRequired" {
				t.Errorf("token %q at %s: %d %v", token, path, code, body)
			}
		}
	}
	for name, file := range map[string]string{"none": "", "missing": filepath.Join(t.TempDir(), "no"), "empty": tokenFile(t, "", 0o600), "writable": tokenFile(t, "x", 0o620)} {
		h, _ := fixture(t, func(c *Config) { c.TokenFile = file })
		for _, header := range []string{"Bearer", "Bearer ", "Bearer x"} {
			q := httptest.NewRequest("GET", Prefix+"repositories", nil)
			q.Header.Set("Authorization", header)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, q)
			if w.Code != 401 {
				t.Errorf("token file %s, %q: %d", name, header, w.Code)
			}
		}
	}
}

func tokenFile(t *testing.T, content string, mode os.FileMode) string {
	name := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(name, []byte(content+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, mode); err != nil { // which the umask does not change
		t.Fatal(err)
	}
	return name
}

func TestFallback(t *testing.T) {
	t.Parallel()
	local := &fakeSource{list: []counts.Totals{repositoryTotals("oss/app", 1, 1)}}
	now := noon
	h, source := fixture(t, func(c *Config) {
		c.Fallback = local
		c.Now = func() time.Time { return now }
	})
	source.err = errors.New("connection refused")
	for _, path := range []string{"repositories", "repositories/oss/app", "repositories/oss/app/daily"} {
		if code, body := get(t, h, path, ""); code != 200 || body["degraded"] != true {
			t.Errorf("%s: %d %v", path, code, body)
		}
	}
	if source.calls != 1 {
		t.Errorf("the source was read %d times, want once: it had just failed", source.calls)
	}
	source.err = nil
	now = now.Add(3 * time.Second)
	if _, body := get(t, h, "repositories/oss/app", ""); body["degraded"] != nil || body["pulls"] != 30.0 {
		t.Errorf("the source works again: %v, want its counts", body)
	}
	local.err, source.err = errors.New("disk"), errors.New("redis")
	now = now.Add(3 * time.Second)
	for _, path := range []string{"repositories", "repositories/oss/app", "repositories/oss/app/daily"} {
		code, body := get(t, h, path, "")
		if code != 503 || strings.Contains(fmt.Sprint(body), "disk") {
			t.Errorf("%s: %d %v", path, code, body)
		}
	}
}

// Requests within listingAge share one list.
func TestListingIsShared(t *testing.T) {
	t.Parallel()
	h, source := fixture(t, nil)
	for range 10 {
		get(t, h, "repositories", "")
	}
	if source.calls != 1 {
		t.Errorf("the source was read %d times, want once", source.calls)
	}
}

func TestPushes(t *testing.T) {
	t.Parallel()
	three := 3
	h, _ := fixture(t, func(c *Config) {
		c.Pushes = func(_ context.Context, limit int, _ bool) ([]Push, error) {
			return []Push{
				{ID: "2", Repository: "secret/app", Digest: "sha256:2"},
				{ID: "1", Repository: "oss/app", Tags: []string{"v1"}, Digest: "sha256:1", LayersRecorded: &three},
				{ID: "0", Repository: "oss/app", Digest: "sha256:0"},
			}, nil
		}
	})
	code, body := get(t, h, "pushes", "")
	list := body["pushes"].([]any)
	if code != 200 || len(list) != 2 {
		t.Fatalf("%d %v, want the two public pushes", code, body)
	}
	first, second := list[0].(map[string]any), list[1].(map[string]any)
	if first["layersRecorded"] != 3.0 || second["layersRecorded"] != nil || second["tags"] == nil || second["platforms"] == nil {
		t.Errorf("pushes %v", list)
	}
	if _, body := get(t, h, "pushes?limit=1", "secret-token"); len(body["pushes"].([]any)) != 1 {
		t.Errorf("limit=1: %v, want one push", body)
	}
	without, _ := fixture(t, nil)
	if code, _ := get(t, without, "pushes", ""); code != 404 {
		t.Errorf("without Pushes: %d", code)
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	h, _ := fixture(t, func(c *Config) {
		c.Health = func(_ context.Context, all bool) any { return map[string]any{"all": all} }
	})
	for token, all := range map[string]bool{"": false, "secret-token": true} {
		if code, body := get(t, h, "health", token); code != 200 || body["all"] != all {
			t.Errorf("token %q: %d %v", token, code, body)
		}
	}
	if code, body := get(t, h, "health", "wrong"); code != 401 {
		t.Errorf("invalid token: %d %v, want 401", code, body)
	}
	h, _ = fixture(t, nil)
	if code, body := get(t, h, "health", ""); code != 200 || body["status"] != "ok" {
		t.Errorf("%d %v", code, body)
	}
}

// While the source fails, a 404 is degraded, since another registry may have counted the
// repository. A private repository still looks like one that does not exist.
func TestDegradedNotFound(t *testing.T) {
	t.Parallel()
	h, source := fixture(t, func(c *Config) { c.Fallback = &fakeSource{} })
	source.err = errors.New("redis has lost counts")
	for _, path := range []string{"repositories/oss/app", "repositories/secret/app", "repositories/oss/app", "repositories/oss/app/daily", "repositories/secret/app/daily"} {
		code, body := get(t, h, path, "")
		if path == "repositories/oss/app/daily" {
			continue // fakeSource has counts for it
		}
		if code != 404 || body["error"] != "RepositoryNotFound" || body["degraded"] != true {
			t.Errorf("%s: %d %v, want a degraded 404", path, code, body)
		}
	}
}
