package pages

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mmcdole/gofeed"
	"github.com/mmcdole/gofeed/atom"
	xhtml "golang.org/x/net/html"

	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/versions"
)

// fakeCounts counts each public repository but oss/none, and secret ones.
type fakeCounts struct {
	counts.Source
	failing bool
}

func (c fakeCounts) Repository(_ context.Context, name string) (counts.Totals, map[string]map[counts.Class]int64, bool, error) {
	if c.failing {
		return counts.Totals{}, nil, false, errors.New("Redis is not available")
	}
	totals := counts.Totals{Name: name, Counts: map[counts.Class]int64{counts.Pull: 1234567, counts.Push: 12}, LastPush: pushed}
	return totals, nil, isPublic(name) && !strings.HasPrefix(name, "oss/none"), nil
}

var pushed = time.Date(2026, 11, 27, 9, 30, 12, 345_000, time.UTC)

func isPublic(repository string) bool { return strings.HasPrefix(repository, "oss/") }

type rig struct {
	t   *testing.T
	cfg Config
	db  state.Store
}

func newRig(t *testing.T) *rig {
	t.Helper()
	db, err := state.Open(state.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	r := &rig{t: t, db: state.OnPebble(db)}
	r.cfg = Config{
		Versions: versions.New(r.db), Counts: fakeCounts{}, Visible: isPublic,
		Name: "registry.example.com", Base: "https://registry.example.com", Account: "did:web:registry.example.com",
		Pull: func(repository, tag string) string { return "registry.example.com/" + repository + ":" + tag },
		Document: func(v *versions.Version) string {
			return "at://did:web:registry.example.com/site.standard.document/" + v.Document
		},
	}
	return r
}

func (r *rig) put(vs ...versions.Version) {
	r.t.Helper()
	var b state.Batch
	for _, v := range vs {
		if err := r.cfg.Versions.Put(&b, v); err != nil {
			r.t.Fatal(err)
		}
	}
	if err := r.db.Commit(&b, state.NoSync); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) get(path string, header ...string) (*http.Response, string) {
	r.t.Helper()
	q := httptest.NewRequest("GET", path, nil)
	for i := 0; i < len(header); i += 2 {
		q.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	New(r.cfg).ServeHTTP(w, q)
	body, _ := io.ReadAll(w.Result().Body)
	return w.Result(), string(body)
}

func version(repository, name string, minutes int) versions.Version {
	return versions.Version{
		Repository: repository, Name: name, Tags: []string{"latest"}, Digest: "sha256:" + strings.Repeat("ab", 32),
		Time: pushed.Add(time.Duration(minutes) * time.Minute), Size: 12_345_678, Layers: 5, Images: 2,
		Platforms: []string{"linux/amd64", "linux/arm64", "linux/arm/v7", "linux/s390x"}, Post: "3kpost" + name, Document: "3kdocument",
	}
}

// Each page is well-formed, has no scripts and nothing inline, and its links lead to pages.
func TestPages(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.put(version("oss/app", "v1.0.0", 0), version("oss/app", "v1.1.0", 1), version("oss/app/tool", "v2", 2), version("secret/app", "v9", 3))
	for path, want := range map[string]struct {
		has, hasNot []string
	}{
		"/tidings/": {
			[]string{"oss/app</span>", "v1.1.0", "oss/app/tool</span>", "12.3 MB", "linux/arm/v7 and 1 more", `href="/tidings/r/oss/app/v1.0.0"`},
			[]string{"secret"},
		},
		"/tidings/r/oss/app": {
			[]string{"<h1>oss/app</h1>", "1\u202f234\u202f567", "docker pull registry.example.com/oss/app:v1.1.0", `href="/tidings/r/oss/app/feed.atom"`},
			[]string{"v2", "secret"},
		},
		"/tidings/r/oss/app/v1.0.0": {
			[]string{
				"<h1>v1.0.0</h1>", "27 November 2026, 09:30 UTC", "12.3 MB", "linux/s390x", "latest", "sha256:abab",
				`<link rel="site.standard.document" href="at://did:web:registry.example.com/site.standard.document/3kdocument">`,
				`href="https://bsky.app/profile/did:web:registry.example.com/post/3kpostv1.0.0"`,
			},
			[]string{"v1.1.0"},
		},
		"/tidings/r/oss/app/tool":    {[]string{"<h1>oss/app/tool</h1>"}, nil},
		"/tidings/r/oss/app/tool/v2": {[]string{"<h1>v2</h1>"}, nil},
		"/tidings/r/oss/counted":     {[]string{"No version has been announced yet"}, []string{"docker pull"}},
	} {
		res, body := r.get(path)
		if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/html; charset=utf-8" {
			t.Errorf("%s: %s, %s", path, res.Status, res.Header.Get("Content-Type"))
		}
		for _, text := range want.has {
			if !strings.Contains(body, text) {
				t.Errorf("%s: missing %q in\n%s", path, text, body)
			}
		}
		for _, text := range want.hasNot {
			if strings.Contains(body, text) {
				t.Errorf("%s: has %q", path, text)
			}
		}
		checkMarkup(t, path, body)
		for _, link := range regexp.MustCompile(`href="(/[^"]*)"`).FindAllStringSubmatch(body, -1) {
			if res, _ := r.get(html.UnescapeString(link[1])); res.StatusCode != http.StatusOK {
				t.Errorf("%s links to %s: %s", path, link[1], res.Status)
			}
		}
	}
}

// checkMarkup checks that each element is closed and that the content security policy
// allows everything on the page.
func checkMarkup(t *testing.T, path, body string) {
	t.Helper()
	var open []string
	for z := xhtml.NewTokenizer(strings.NewReader(body)); ; {
		kind := z.Next()
		if kind == xhtml.ErrorToken {
			break
		}
		token := z.Token()
		switch {
		case kind == xhtml.EndTagToken && (len(open) == 0 || open[len(open)-1] != token.Data):
			t.Errorf("%s: </%s> in %v", path, token.Data, open)
		case kind == xhtml.EndTagToken:
			open = open[:len(open)-1]
		case kind == xhtml.StartTagToken && !slices.Contains([]string{"meta", "link"}, token.Data):
			open = append(open, token.Data)
		}
		if token.Data == "script" || token.Data == "style" && kind != xhtml.TextToken {
			t.Errorf("%s: <%s>", path, token.Data)
		}
		for _, a := range token.Attr {
			if a.Key == "style" || strings.HasPrefix(a.Key, "on") {
				t.Errorf("%s: %s=%q", path, a.Key, a.Val)
			}
		}
	}
	if len(open) > 0 {
		t.Errorf("%s: %v not closed", path, open)
	}
}

// What pushers choose cannot leave its element.
func TestPagesEscape(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	v := version("oss/app", "<script>alert(1)</script>", 0)
	v.Platforms, v.Tags = []string{"<b>linux"}, []string{`"onload="x`}
	v.Document = `"><script>`
	r.put(v)
	for _, path := range []string{"/tidings/", "/tidings/r/oss/app", Path("oss/app", v.Name), "/tidings/feed.atom"} {
		res, body := r.get(path)
		if res.StatusCode != http.StatusOK || strings.Contains(body, "<script") || strings.Contains(body, "<b>linux") {
			t.Errorf("%s: %s\n%s", path, res.Status, body)
		}
	}
}

// A repository that is not public looks like one that does not exist.
func TestPagesArePrivate(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.put(version("secret/app", "v1", 0), version("secret/app/oss", "v1", 0))
	_, none := r.get("/tidings/r/oss/none")
	headers := func(h http.Header) string { return fmt.Sprint(h) }
	for _, path := range []string{
		"/tidings/r/oss/none", "/tidings/r/oss/none/v1", "/tidings/r/oss/none/feed.atom",
		"/tidings/r/secret/app", "/tidings/r/secret/app/v1", "/tidings/r/secret/app/feed.atom", "/tidings/r/secret/app/", "/tidings/r/secret", "/tidings/r/",
		"/tidings/r/secret/app/oss/v1", "/tidings/r/" + strings.Repeat("a", 3000), "/tidings/x", "/tidings/r/secret%2Fapp",
	} {
		want, _ := r.get("/tidings/r/oss/none")
		res, body := r.get(path)
		if res.StatusCode != http.StatusNotFound || body != none || headers(res.Header) != headers(want.Header) {
			t.Errorf("%s: %s %v\n%s", path, res.Status, res.Header, body)
		}
	}
	if _, body := r.get("/tidings/feed.atom"); strings.Contains(body, "secret") {
		t.Errorf("the feed has a private repository:\n%s", body)
	}
}

func TestPagesWithoutCounts(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.put(version("oss/app", "v1", 0))
	r.cfg.Counts = fakeCounts{failing: true}
	if res, body := r.get("/tidings/r/oss/app"); res.StatusCode != http.StatusOK || strings.Contains(body, "Pulls") {
		t.Errorf("%s\n%s", res.Status, body)
	}
	r.cfg.Counts = nil
	if res, _ := r.get("/tidings/r/oss/app"); res.StatusCode != http.StatusOK {
		t.Error(res.Status)
	}
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.put(version("oss/app", "v1", 0))
	for _, path := range []string{"/tidings/", "/tidings/r/oss/app/v1", "/tidings/feed.atom", styleURL} {
		res, _ := r.get(path)
		tag, csp := res.Header.Get("ETag"), res.Header.Get("Content-Security-Policy")
		if tag == "" || !strings.HasPrefix(csp, "default-src 'none';") || strings.Contains(csp, "unsafe") {
			t.Errorf("%s: ETag %s, CSP %s", path, tag, csp)
		}
		if res, body := r.get(path, "If-None-Match", tag); res.StatusCode != http.StatusNotModified || body != "" {
			t.Errorf("%s with its ETag: %s, %d bytes", path, res.Status, len(body))
		}
	}
	res, _ := r.get("/tidings/feed.atom")
	modified := res.Header.Get("Last-Modified")
	if modified != "Fri, 27 Nov 2026 09:30:12 GMT" {
		t.Errorf("Last-Modified: %q", modified)
	}
	if res, _ := r.get("/tidings/feed.atom", "If-Modified-Since", modified); res.StatusCode != http.StatusNotModified {
		t.Errorf("with If-Modified-Since: %s", res.Status)
	}
	r.put(version("oss/app", "v2", 1))
	if res, _ := r.get("/tidings/feed.atom", "If-Modified-Since", modified); res.StatusCode != http.StatusOK {
		t.Errorf("after another version: %s", res.Status)
	}
	w := httptest.NewRecorder()
	New(r.cfg).ServeHTTP(w, httptest.NewRequest("POST", "/tidings/", nil))
	if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") == "" {
		t.Errorf("POST: %d", w.Code)
	}
}

// Feeds have the elements that RFC 4287 requires, and a parser by others reads them.
func TestFeeds(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.put(version("oss/app", "v1.0.0", 0), version("oss/app", "v1.1.0", 1), version("oss/tool", "v2", 2))
	for path, want := range map[string]struct {
		entries []string
		page    string
	}{
		"/tidings/feed.atom":               {[]string{"oss/tool:v2", "oss/app:v1.1.0", "oss/app:v1.0.0"}, "https://registry.example.com/tidings/"},
		"/tidings/r/oss/app/feed.atom":     {[]string{"oss/app:v1.1.0", "oss/app:v1.0.0"}, "https://registry.example.com/tidings/r/oss/app"},
		"/tidings/r/oss/counted/feed.atom": {nil, "https://registry.example.com/tidings/r/oss/counted"},
	} {
		res, body := r.get(path)
		if got := res.Header.Get("Content-Type"); res.StatusCode != http.StatusOK || got != "application/atom+xml; charset=utf-8" {
			t.Errorf("%s: %s, %s", path, res.Status, got)
		}
		feed, err := (&atom.Parser{}).Parse(strings.NewReader(body))
		if err != nil {
			t.Fatalf("%s: %v\n%s", path, err, body)
		}
		if _, err := gofeed.NewParser().ParseString(body); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		checkFeed(t, path, body)
		var titles []string
		for _, e := range feed.Entries {
			titles = append(titles, e.Title)
		}
		if !slices.Equal(titles, want.entries) {
			t.Errorf("%s: entries %q, want %q", path, titles, want.entries)
		}
		links := map[string]string{}
		for _, l := range feed.Links {
			links[l.Rel] = l.Href
		}
		if links["self"] != "https://registry.example.com"+path || links["alternate"] != want.page {
			t.Errorf("%s: links %v", path, links)
		}
		for _, e := range feed.Entries {
			page := strings.TrimPrefix(e.Links[0].Href, "https://registry.example.com")
			if res, _ := r.get(page); res.StatusCode != http.StatusOK || e.Links[0].Rel != "alternate" {
				t.Errorf("%s: entry %s links to %s: %s", path, e.Title, page, res.Status)
			}
		}
	}
}

// checkFeed checks what RFC 4287 (sections 4.1.1 and 4.1.2) requires: of a feed and of each
// entry one id, title and updated, an author, at most one alternate link of a type, and IDs
// that differ.
func checkFeed(t *testing.T, path, body string) {
	t.Helper()
	type element struct {
		IDs     []string   `xml:"http://www.w3.org/2005/Atom id"`
		Titles  []string   `xml:"http://www.w3.org/2005/Atom title"`
		Updated []string   `xml:"http://www.w3.org/2005/Atom updated"`
		Links   []atomLink `xml:"http://www.w3.org/2005/Atom link"`
		Authors []string   `xml:"http://www.w3.org/2005/Atom author>name"`
		Content []string   `xml:"http://www.w3.org/2005/Atom content"`
	}
	var feed struct {
		XMLName xml.Name `xml:"http://www.w3.org/2005/Atom feed"`
		element
		Entries []element `xml:"http://www.w3.org/2005/Atom entry"`
	}
	d := xml.NewDecoder(strings.NewReader(body))
	d.Strict = true
	if err := d.Decode(&feed); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if len(feed.Authors) != 1 || feed.Authors[0] == "" {
		t.Errorf("%s: authors %q", path, feed.Authors)
	}
	ids := map[string]bool{}
	for _, e := range append([]element{feed.element}, feed.Entries...) {
		if len(e.IDs) != 1 || len(e.Titles) != 1 || len(e.Updated) != 1 || e.Titles[0] == "" {
			t.Fatalf("%s: %+v", path, e)
		}
		if !regexp.MustCompile(`^tag:[a-z.]+,2026-\d\d-\d\d:[!-~]+$`).MatchString(e.IDs[0]) || ids[e.IDs[0]] {
			t.Errorf("%s: id %q", path, e.IDs[0])
		}
		ids[e.IDs[0]] = true
		if _, err := time.Parse(time.RFC3339, e.Updated[0]); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		alternate := 0
		for _, l := range e.Links {
			if l.Rel == "alternate" {
				alternate++
			}
		}
		if alternate != 1 {
			t.Errorf("%s: %d alternate links", path, alternate)
		}
	}
}

// Without a public URL the addresses are those of the request.
func TestBaseOfRequest(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.cfg.Base = ""
	r.put(version("oss/app", "v1", 0))
	if _, body := r.get("/tidings/feed.atom"); !strings.Contains(body, `href="http://example.com/tidings/r/oss/app/v1"`) {
		t.Error(body)
	}
}

// A page of 100 versions, and a feed, in a store of 10,000 versions.
func BenchmarkPages(b *testing.B) {
	db, err := state.Open(state.Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	store := versions.New(state.OnPebble(db))
	var batch state.Batch
	for i := range 10_000 {
		if err := store.Put(&batch, version(fmt.Sprint("oss/app", i%50), fmt.Sprint("v", i), i)); err != nil {
			b.Fatal(err)
		}
	}
	if err := state.OnPebble(db).Commit(&batch, state.NoSync); err != nil {
		b.Fatal(err)
	}
	handler := New(Config{Versions: store, Visible: isPublic, Name: "registry.example.com", Base: "https://registry.example.com"})
	for _, path := range []string{"/tidings/", "/tidings/r/oss/app7", "/tidings/r/oss/app7/v7", "/tidings/r/oss/app7/feed.atom"} {
		b.Run(strings.ReplaceAll(strings.TrimPrefix(path, "/tidings/"), "/", "_"), func(b *testing.B) {
			for b.Loop() {
				w := httptest.NewRecorder()
				handler.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
				if w.Code != http.StatusOK {
					b.Fatal(w.Code)
				}
				b.ReportMetric(float64(w.Body.Len()), "bytes")
			}
		})
	}
}
