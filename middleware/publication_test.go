package middleware

import (
	"encoding/json"
	"maps"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/configuration"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/hold"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/card"
	"github.com/tidings-dev/tidings/notifier/stats"
)

// A listedRecord is a record as listRecords returns it.
type listedRecord struct {
	URI, CID string
	Value    map[string]any
}

func (r *testRegistry) listRecords(collection string) []listedRecord {
	r.t.Helper()
	var out struct{ Records []listedRecord }
	a := r.do("GET", "/xrpc/com.atproto.repo.listRecords?repo=did:web:registry.example.com&collection="+collection, nil)
	if err := json.Unmarshal(a.body, &out); err != nil || a.status != http.StatusOK {
		r.t.Fatalf("%s: %d %s, %v", collection, a.status, a.body, err)
	}
	return out.Records
}

// firstVersion is the CID of a record as it was before it got the reference to a post, if it has
// one.
func (l listedRecord) firstVersion(t *testing.T) string {
	t.Helper()
	first := maps.Clone(l.Value)
	delete(first, "bskyPostRef")
	raw, err := json.Marshal(first)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := lexicon.FromJSON(raw)
	if err != nil {
		t.Fatal(err)
	}
	return block.CIDOf(encoded).String()
}

// A pushed image has what AppViews and readers check, as they check it: over HTTP, beginning
// with the post.
func TestPublicationAsReadersCheckIt(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	_, err := hold.Init(hold.InitConfig{Dir: filepath.Join(data, "hold"), KeyFile: filepath.Join(data, "hold.key"), Hostname: "registry.example.com", Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	r := serveTidings(t, configuration.Parameters{
		"data": data, "hold": map[string]any{"hostname": "registry.example.com"}, "public": []any{"oss/**"},
		"announce": map[string]any{"collect": "0s", "tags": []any{"*"}, "appview": "off", "anonymous_pushes": true, "publication": map[string]any{"name": "Images"},
			"link": "https://example.com/{{.Repository}}"},
	})
	r.push("oss/app", "v1.0.0_rc-1", r.image("oss/app", "b", v1.MediaTypeImageManifest))
	r.waitForPushes(1, func(p stats.Push) bool { return p.State == "done" })
	eventually(t, func() bool {
		documents := r.listRecords(lexicon.NSIDDocument)
		return len(documents) == 1 && documents[0].Value["bskyPostRef"] != nil
	})

	posts := r.listRecords(lexicon.NSIDPost)
	if len(posts) != 1 {
		t.Fatalf("got %d posts, want 1", len(posts))
	}
	var embed struct {
		External struct {
			URI            string
			AssociatedRefs []struct{ URI, CID string }
		}
	}
	raw, err := json.Marshal(posts[0].Value["embed"])
	if err != nil || json.Unmarshal(raw, &embed) != nil {
		t.Fatalf("the embed is %s, %v", raw, err)
	}
	refs := map[string]string{}
	for _, ref := range embed.External.AssociatedRefs {
		refs[ref.URI] = ref.CID
	}
	var document, site listedRecord
	for collection, into := range map[string]*listedRecord{lexicon.NSIDDocument: &document, lexicon.NSIDPublication: &site} {
		found := r.listRecords(collection)
		if len(found) != 1 {
			t.Fatalf("got %d records of %s, want 1", len(found), collection)
		}
		*into = found[0]
		if want := into.firstVersion(t); refs[into.URI] != want {
			t.Errorf("the post refers to %v, want %s with the CID %s", refs, into.URI, want)
		}
	}
	if ref, _ := document.Value["bskyPostRef"].(map[string]any); ref["uri"] != posts[0].URI || ref["cid"] != posts[0].CID {
		t.Errorf("the document refers to the post %v, want %s with the CID %s", ref, posts[0].URI, posts[0].CID)
	}
	if document.Value["site"] != site.URI {
		t.Errorf("the site of the document is %v, want %s", document.Value["site"], site.URI)
	}
	url, path := site.Value["url"].(string), document.Value["path"].(string)
	if url != "https://registry.example.com/tidings" || !strings.HasPrefix(path, "/") || strings.HasSuffix(path, "/") || url+path != embed.External.URI {
		t.Errorf("the card leads to %s, want %s + %s", embed.External.URI, url, path)
	}
	for collection, members := range map[string][]string{lexicon.NSIDPublication: {"url", "name"}, lexicon.NSIDDocument: {"site", "title", "publishedAt"}} {
		record := map[string]listedRecord{lexicon.NSIDPublication: site, lexicon.NSIDDocument: document}[collection]
		for _, member := range members {
			if text, _ := record.Value[member].(string); text == "" {
				t.Errorf("%s has no %s: %v", collection, member, record.Value)
			}
		}
	}
	icon, _ := site.Value["icon"].(map[string]any)
	drawn, err := card.Icon("registry.example.com")
	if err != nil || icon["mimeType"] != "image/png" || icon["size"] != float64(len(drawn)) {
		t.Errorf("the icon is %v, want the default of %d bytes, %v", icon, len(drawn), err)
	}
	if document.Value["coverImage"] == nil || site.Value["name"] != "Images" {
		t.Errorf("got %v and %v", document.Value, site.Value)
	}

	for _, wellKnown := range []string{"/.well-known/site.standard.publication", "/.well-known/site.standard.publication/tidings"} {
		if a := r.do("GET", wellKnown, nil); a.status != http.StatusOK || string(a.body) != site.URI {
			t.Errorf("%s: %d %q, want %s", wellKnown, a.status, a.body, site.URI)
		}
	}
	page := r.do("GET", strings.TrimPrefix(embed.External.URI, "https://registry.example.com"), nil)
	link := regexp.MustCompile(`<link rel="site\.standard\.document" href="([^"]*)">`).FindSubmatch(page.body)
	if page.status != http.StatusOK || link == nil || string(link[1]) != document.URI {
		t.Errorf("the page: %d, the link %q, want %s\n%s", page.status, link, document.URI, page.body)
	}
}

// Without the option nothing is served or written.
func TestNoPublication(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	_, err := hold.Init(hold.InitConfig{Dir: filepath.Join(data, "hold"), KeyFile: filepath.Join(data, "hold.key"), Hostname: "registry.example.com", Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	r := serveTidings(t, configuration.Parameters{
		"data": data, "hold": map[string]any{"hostname": "registry.example.com"}, "public": []any{"oss/**"},
		"announce": map[string]any{"collect": "0s", "tags": []any{"*"}, "appview": "off", "anonymous_pushes": true},
	})
	r.push("oss/app", "v1.0.0", r.image("oss/app", "b", v1.MediaTypeImageManifest))
	r.waitForPushes(1, func(p stats.Push) bool { return p.State == "done" })
	for _, collection := range []string{lexicon.NSIDDocument, lexicon.NSIDPublication} {
		if found := r.listRecords(collection); len(found) > 0 {
			t.Errorf("got %v", found)
		}
	}
	if a := r.do("GET", "/.well-known/site.standard.publication", nil); a.status != http.StatusNotFound {
		t.Errorf("got %d, want 404", a.status)
	}
}
