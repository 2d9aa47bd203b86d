package pages

import (
	"context"
	"fmt"
	"io"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/notifier/counts"
)

// asked records the names of repositories whose counts are read.
type asked struct {
	counts.Source
	names []string
}

func (a *asked) Repository(ctx context.Context, name string) (counts.Totals, map[string]map[counts.Class]int64, bool, error) {
	a.names = append(a.names, name)
	return a.Source.Repository(ctx, name)
}

// A request for anything of a private repository has the same answer as one for what does not
// exist, whatever the method and the conditions, and reads the same.
func TestPrivateLikeMissing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.put(version("secret/app", "v1", 0), version("oss/app", "v1", 0))
	reads := &asked{Source: r.cfg.Counts}
	r.cfg.Counts = reads
	answer := func(method, path string, header []string) string {
		q := httptest.NewRequest(method, path, strings.NewReader(""))
		for i := 0; i < len(header); i += 2 {
			q.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		New(r.cfg).ServeHTTP(w, q)
		body, _ := io.ReadAll(w.Result().Body)
		got := fmt.Sprint(w.Code, " ", w.Result().Header, " ", len(body), " ", string(body))
		return strings.ReplaceAll(got, path, "PATH")
	}
	known, _ := r.get("/tidings/r/oss/app/v1")
	for _, suffix := range []string{"", "/", "/v1", "/v1/", "/v9", "/feed.atom", "/feed.atom/", "/latest", "?x=1", "/v1?x=1"} {
		for _, method := range []string{"GET", "HEAD", "POST", "OPTIONS", "DELETE"} {
			for _, header := range [][]string{
				nil, {"If-None-Match", "*"}, {"If-None-Match", known.Header.Get("ETag")}, {"If-Match", "*"}, {"Range", "bytes=0-9"},
				{"If-Modified-Since", "Fri, 27 Nov 2026 09:30:12 GMT"}, {"If-Unmodified-Since", "Thu, 26 Nov 2020 09:30:12 GMT"}, {"Accept", "application/atom+xml"},
			} {
				got := answer(method, "/tidings/r/secret/app"+suffix, header)
				for _, missing := range []string{"oss/none", "secret/none"} {
					if want := answer(method, "/tidings/r/"+missing+suffix, header); got != want {
						t.Errorf("%s %q with %q: the private one has\n%s\n%s has\n%s", method, suffix, header, got, missing, want)
					}
				}
			}
		}
	}
	for _, name := range reads.names {
		if strings.HasPrefix(name, "secret/") {
			t.Fatalf("the counts of %s are read for anonymous visitors", name)
		}
	}
}

// What private repositories have done does not change what others see: pages and feeds, and
// the headers by which clients cache them.
func TestPrivateVersionsChangeNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.put(version("oss/app", "v1", 0))
	paths := []string{"/tidings/", "/tidings/feed.atom", "/tidings/r/oss/app", "/tidings/r/oss/app/v1", "/tidings/r/oss/app/feed.atom", "/tidings/r/secret"}
	seen := func() (all []string) {
		for _, path := range paths {
			res, body := r.get(path)
			all = append(all, fmt.Sprint(res.Status, res.Header, body))
		}
		return all
	}
	before := seen()
	for i := range 200 {
		r.put(version("secret/app", fmt.Sprint("v", i), i), version("oss/other", fmt.Sprint("v", i), i))
	}
	r.put(version("secret/oss/app", "v2", 300), version("secret", "app", 300))
	r.cfg.Visible = func(repository string) bool { return repository == "oss/app" }
	for i, got := range seen() {
		if got != before[i] {
			t.Errorf("%s: before the private versions\n%s\nafter\n%s", paths[i], before[i], got)
		}
	}
}
