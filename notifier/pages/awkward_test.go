package pages

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/mmcdole/gofeed"
	"github.com/mmcdole/gofeed/atom"

	"github.com/tidings-dev/tidings/notifier/post"
	"github.com/tidings-dev/tidings/notifier/post/posttest"
	"github.com/tidings-dev/tidings/notifier/versions"
)

// versionOf is a version as the posts of package post announce it, with names that nothing
// has filtered.
func versionOf(f post.Facts, at time.Time) versions.Version {
	return versions.Version{
		Repository: f.Repository, Name: f.Tags[0], Tags: f.Tags[1:], Digest: f.Digest, Time: at,
		Size: f.Size, Images: f.Images, Layers: f.Layers, Platforms: f.Platforms, Post: "3kpost", Document: "3kdocument",
	}
}

// Pages and feeds of awkward versions are well-formed and valid, and a name that the registry
// accepts leads from the feed to its page.
func TestAwkward(t *testing.T) {
	t.Parallel()
	all := posttest.Awkward()
	r := newRig(t)
	r.cfg.Visible = func(string) bool { return true }
	put := map[string]bool{}
	for i, name := range slices.Sorted(maps.Keys(all)) {
		v := versionOf(all[name], pushed.Add(time.Duration(i)*time.Hour))
		r.put(v)
		put[v.Repository+":"+v.Name] = true
		page := Path(v.Repository, v.Name)
		if len(page) > maxPath || strings.Contains(page, "//") {
			continue // is not found; the feed of all versions has it
		}
		res, body := r.get(page)
		if res.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", name, res.Status)
		}
		checkMarkup(t, name, body)
		res, body = r.get(Path(v.Repository, feedName))
		if res.StatusCode != http.StatusOK {
			t.Errorf("%s: feed: %s", name, res.Status)
		}
		checkAwkwardFeed(t, name, body)
	}
	for _, path := range []string{Prefix, Prefix + feedName} {
		_, body := r.get(path)
		if path == Prefix {
			checkMarkup(t, path, body)
		} else if n := checkAwkwardFeed(t, path, body); n != min(len(put), inFeed) {
			t.Errorf("%s: got %d entries of %d versions", path, n, len(put))
		}
	}
}

// checkAwkwardFeed checks a feed and returns the number of entries that a parser by others
// finds.
func checkAwkwardFeed(t *testing.T, name, body string) int {
	t.Helper()
	checkFeed(t, name, body)
	if !utf8.ValidString(body) || strings.ContainsFunc(body, notXML) {
		t.Errorf("%s: the feed has characters that XML does not allow:\n%q", name, body)
	}
	feed, err := (&atom.Parser{}).Parse(strings.NewReader(body))
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, body)
	}
	if _, err := gofeed.NewParser().ParseString(body); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	for _, e := range feed.Entries {
		if e.Title == "" || e.Content == nil || e.Content.Value == "" && strings.Contains(body, "sha256:") {
			t.Errorf("%s: entry %+v", name, e)
		}
	}
	return len(feed.Entries)
}

// notXML reports whether XML 1.0 (section 2.2) does not allow a character.
func notXML(r rune) bool {
	return r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == '\uFFFE' || r == '\uFFFF'
}
