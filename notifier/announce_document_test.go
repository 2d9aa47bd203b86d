package notifier

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/pds"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/internal/race"
	"github.com/tidings-dev/tidings/notifier/announce"
	"github.com/tidings-dev/tidings/notifier/pages"
	"github.com/tidings-dev/tidings/notifier/publication"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/versions"
)

const publicationURL = "https://registry.test/tidings"

// withDocuments is a configuration with pictures and documents. A rig opens its publication
// in openSite.
func withDocuments() *announce.Config {
	cfg := withCards("")
	cfg.Page = func(repository, tag, _ string) string { return pages.URL("https://registry.test", repository, tag) }
	cfg.Hashtags = []string{"oss"}
	return cfg
}

// openSite opens the publication of a rig.
func openSite(t testing.TB, db state.Store) *publication.Site {
	t.Helper()
	s, err := publication.New(publication.Config{Description: publication.Description{URL: publicationURL, Name: "registry.test"}, Account: owner, State: db})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// newDocumentRig is a rig with documents.
func newDocumentRig(t *testing.T) *rig {
	t.Helper()
	r := newRig(t, nil)
	r.reopen(withDocuments())
	return r
}

// stored returns the records of a collection by their keys.
func (r *rig) stored(collection string) map[string]repo.Record {
	r.t.Helper()
	list, _, err := r.repo.List(collection, "", 100, true)
	if err != nil {
		r.t.Fatal(err)
	}
	all := map[string]repo.Record{}
	for _, record := range list {
		all[record.RKey] = record
	}
	return all
}

// fieldsOf decodes a record.
func fieldsOf(t testing.TB, r repo.Record) map[string]any {
	t.Helper()
	fields, err := lexicon.Unmarshal(r.Value)
	if err != nil {
		t.Fatal(err)
	}
	return fields
}

// checkDocuments checks the rules by which AppViews and readers match posts, documents and
// the publication, for each document, and that each has a post, names it, and was written
// twice: the post names the first version.
func (r *rig) checkDocuments(want int) {
	r.t.Helper()
	t := r.t
	sites, documents, posts := r.stored(lexicon.NSIDPublication), r.stored(lexicon.NSIDDocument), r.stored(lexicon.NSIDPost)
	if len(sites) != 1 || len(documents) != want {
		t.Fatalf("got %d publications and %d documents, want 1 and %d", len(sites), len(documents), want)
	}
	var siteKey string
	for siteKey = range sites {
	}
	site := fieldsOf(t, sites[siteKey])
	siteURI := "at://" + owner + "/" + lexicon.NSIDPublication + "/" + siteKey
	for key, record := range documents {
		if status, err := lexicon.Validate(lexicon.NSIDDocument, record.Value); err != nil || status != lexicon.StatusValid {
			t.Errorf("document %s: %s, %v", key, status, err)
		}
		document := fieldsOf(t, record)
		if document["site"] != siteURI {
			t.Errorf("document %s: its site is %v, want %s", key, document["site"], siteURI)
		}
		p, ok := posts[key]
		if !ok {
			t.Errorf("document %s has no post", key)
			continue
		}
		post := fieldsOf(t, p)
		embed, _ := post["embed"].(map[string]any)
		external, _ := embed["external"].(map[string]any)
		if external["uri"] != site["url"].(string)+document["path"].(string) {
			t.Errorf("document %s: the preview leads to %v, want %v + %v", key, external["uri"], site["url"], document["path"])
		}
		refs := map[string]string{}
		list, _ := external["associatedRefs"].([]any)
		for _, item := range list {
			ref := item.(map[string]any)
			refs[ref["uri"].(string)] = ref["cid"].(string)
		}
		wantRefs := map[string]string{
			siteURI: block.CIDOf(sites[siteKey].Value).String(),
			"at://" + owner + "/" + lexicon.NSIDDocument + "/" + key: firstVersion(t, document).String(),
		}
		if ref, _ := document["bskyPostRef"].(map[string]any); ref["uri"] != "at://"+owner+"/"+lexicon.NSIDPost+"/"+key || ref["cid"] != p.CID.String() {
			t.Errorf("document %s: it names the post %v, want its own with the CID %s", key, ref, p.CID)
		}
		if got := r.account.updates.of(lexicon.NSIDDocument + "/" + key); got > 1 {
			t.Errorf("document %s: it was updated %d times", key, got)
		}
		if !maps.Equal(refs, wantRefs) {
			t.Errorf("document %s: the preview refers to %v, want %v", key, refs, wantRefs)
		}
		if cover, thumb := lexicon.Blobs(document), lexicon.Blobs(post); len(cover) != len(thumb) || len(cover) == 1 && cover[0].Ref != thumb[0].Ref {
			t.Errorf("document %s: the cover is %v, and the picture of the post is %v", key, cover, thumb)
		}
	}
}

// firstVersion is the CID of a document as it was written with its post.
func firstVersion(t testing.TB, document map[string]any) cid.Cid {
	t.Helper()
	first := maps.Clone(document)
	delete(first, "bskyPostRef")
	encoded, err := lexicon.Encode(first)
	if err != nil {
		t.Fatal(err)
	}
	return block.CIDOf(encoded)
}

// documentCounts returns tidings_documents_total.
func (r *rig) documentCounts() map[string]int {
	counts := map[string]int{}
	for _, outcome := range []string{"written", "refused", "invalid", "referenced", "unreferenced"} {
		if n := testutil.ToFloat64(r.metrics.Documents.WithLabelValues(outcome)); n > 0 {
			counts[outcome] = int(n)
		}
	}
	return counts
}

func TestDocument(t *testing.T) {
	t.Parallel()
	cfg := withDocuments()
	cfg.Collect = time.Second // for both pushes, also on a slow machine
	r := newRig(t, nil)
	r.reopen(cfg)
	r.push(image("a", 3).as("oss/app", "v1"))
	r.push(image("a", 3).as("oss/app", "latest"))
	r.drain()
	r.checkDocuments(1)
	r.checkPicture("v1")
	v, ok, err := versions.New(r.state).Get("oss/app", "v1")
	if err != nil || !ok || r.stored(lexicon.NSIDDocument)[v.Document].RKey == "" {
		t.Errorf("the version is %+v, %v, %v; want its document", v, ok, err)
	}
	document := fieldsOf(t, r.stored(lexicon.NSIDDocument)[v.Document])
	want := map[string]any{"title": "oss/app:v1", "path": "/r/oss/app/v1", "description": "3.1 kB, 3 layers"}
	for member, value := range want {
		if document[member] != value {
			t.Errorf("%s: got %v, want %v", member, document[member], value)
		}
	}
	text, _ := document["textContent"].(string)
	for _, part := range []string{"Also tagged latest", "docker pull registry.test/oss/app:v1", v.Digest} {
		if !strings.Contains(text, part) {
			t.Errorf("the text %q is missing %q", text, part)
		}
	}
	if tags, _ := document["tags"].([]any); len(tags) != 1 || tags[0] != "oss" {
		t.Errorf("got the tags %v", tags)
	}

	// A restart writes neither record again, and the state can be lost.
	before := r.stored(lexicon.NSIDPublication)
	r.reopen(withDocuments())
	r.push(image("b", 1).as("oss/app", "v2"))
	r.drain()
	r.checkDocuments(2)
	if after := r.stored(lexicon.NSIDPublication); !maps.EqualFunc(before, after, func(a, b repo.Record) bool { return a.CID == b.CID }) {
		t.Errorf("got %v, want %v", after, before)
	}
}

// Without pictures a post has a preview all the same.
func TestDocumentWithoutCard(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	cfg := withDocuments()
	cfg.Card = false
	r.reopen(cfg)
	r.push(image("a", 3).as("oss/app", "v1"))
	r.drain()
	r.checkDocuments(1)
	if blobs := lexicon.Blobs(r.posts()[0]); len(blobs) != 0 {
		t.Errorf("got the pictures %v", blobs)
	}
}

// Each fault of the batch and of the picture. Both records are written once or, if the
// account refuses the document, only the post.
func TestDocumentFaults(t *testing.T) {
	race.Skip(t, "its goroutines are those of the tests without faults")
	t.Parallel()
	for name, tc := range map[string]struct {
		applies []fault
		uploads []uploadFault
		refused string
		want    int // documents
	}{
		"none":                      {want: 1},
		"the batch is lost":         {applies: []fault{lostRequest}, want: 1},
		"the answer is lost":        {applies: []fault{lostAnswer}, want: 1},
		"lost twice":                {applies: []fault{lostRequest, lostAnswer}, want: 1},
		"no picture":                {uploads: []uploadFault{refusedUpload(pds.TooLarge, 413)}, want: 1},
		"no picture, answer lost":   {applies: []fault{lostAnswer}, uploads: []uploadFault{refusedUpload(pds.TooLarge, 413)}, want: 1},
		"the document is refused":   {refused: lexicon.NSIDDocument, want: 0},
		"picture lost at the write": {uploads: []uploadFault{{}, {}}, want: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newDocumentRig(t)
			r.push(image("z", 1).as("secret/app", "v0")) // the publication is written without a post
			r.until("the publication is written", func() bool { return len(r.stored(lexicon.NSIDPublication)) == 1 })
			r.account.mu.Lock()
			r.account.refused = tc.refused
			r.account.mu.Unlock()
			r.account.failUploads(tc.uploads...)
			r.account.failPosts(tc.applies...)
			r.push(image("a", 3).as("oss/app", "v1"))
			r.drain()
			if n := len(r.posts()); n != 1 {
				t.Errorf("got %d posts, want 1", n)
			}
			r.checkDocuments(tc.want)
			if letters := r.letters(); len(letters) != 0 {
				t.Errorf("dead letters: %v", letters)
			}
			want := map[string]int{"written": 1, "referenced": 1}
			if tc.want == 0 {
				want = map[string]int{"refused": 1}
				if refs := fieldsOf(t, onlyRecord(r.stored(lexicon.NSIDPost)))["embed"].(map[string]any)["external"].(map[string]any)["associatedRefs"]; refs != nil {
					t.Errorf("the post refers to %v", refs)
				}
			}
			if got := r.documentCounts(); !maps.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

func onlyRecord(all map[string]repo.Record) repo.Record {
	for _, r := range all {
		return r
	}
	return repo.Record{}
}

// If the account refuses the publication, or a post with all that belongs to it, no document
// is left.
func TestDocumentGivenUp(t *testing.T) {
	t.Parallel()
	for collection, posts := range map[string]int{lexicon.NSIDPublication: 1, lexicon.NSIDPost: 0} {
		r := newRig(t, nil)
		r.prepare = func(a *account) { a.refused = collection }
		r.reopen(withDocuments())
		r.push(image("a", 3).as("oss/app", "v1"))
		r.drain()
		if n, d := len(r.posts()), len(r.stored(lexicon.NSIDDocument)); n != posts || d != 0 {
			t.Errorf("%s is refused: got %d posts and %d documents, want %d and none", collection, n, d, posts)
		}
		if n := len(r.letters()); n != 1-posts {
			t.Errorf("%s is refused: got %d dead letters", collection, n)
		}
	}
}

// Faults of the publication, once or each time. After some tries posts have no documents.
func TestDocumentWithoutPublication(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		prepare func(*account)
		want    int // documents
	}{
		"lost request": {func(a *account) { a.faults = []fault{lostRequest} }, 1},
		"lost answer":  {func(a *account) { a.faults = []fault{lostAnswer} }, 1},
		"each time":    {func(a *account) { a.failing = lexicon.NSIDPublication }, 0},
	} {
		r := newRig(t, nil)
		r.prepare = tc.prepare
		r.reopen(withDocuments())
		r.push(image("a", 3).as("oss/app", "v1"))
		r.drain()
		if n, d := len(r.posts()), len(r.stored(lexicon.NSIDDocument)); n != 1 || d != tc.want {
			t.Errorf("%s: got %d posts and %d documents, want 1 and %d", name, n, d, tc.want)
		}
		if tc.want > 0 {
			r.checkDocuments(tc.want)
		}
	}
}

// Both records are sent in one call and, after a restart, with the same bytes.
func TestDocumentAfterRestart(t *testing.T) {
	t.Parallel()
	r := newDocumentRig(t)
	r.account.failPosts(slices.Repeat([]fault{lostRequest}, 10_000)...)
	r.push(image("a", 3).as("oss/app", "v1"))
	r.until("the post is sent", func() bool {
		r.account.mu.Lock()
		defer r.account.mu.Unlock()
		return r.account.lostPosts != nil
	})
	before := r.account
	r.reopen(withDocuments())
	r.drain()
	r.checkDocuments(1)
	if len(before.lostPosts) != 2 {
		t.Fatalf("got %d writes in the call, want 2", len(before.lostPosts))
	}
	for _, w := range before.lostPosts {
		got := r.stored(w.Collection)[w.RKey]
		if w.Collection == lexicon.NSIDDocument {
			got.CID = firstVersion(t, fieldsOf(t, got))
		}
		if got.CID != block.CIDOf(w.Record) {
			t.Errorf("%s/%s: got %s, want the record that was sent before", w.Collection, w.RKey, got.CID)
		}
	}
}

// What was sent before the picture was dropped, and is written late, is the post and the
// document.
func TestDocumentOfLatePost(t *testing.T) {
	t.Parallel()
	r := newDocumentRig(t)
	r.account.failPosts(slices.Repeat([]fault{lostRequest}, 10_000)...)
	r.push(image("a", 3).as("oss/app", "v1"))
	r.until("the post is sent", func() bool {
		r.account.mu.Lock()
		defer r.account.mu.Unlock()
		return r.account.lostPosts != nil
	})
	before := r.account
	r.prepare = func(a *account) {
		a.latePosts, a.uploads = before.lostPosts, []uploadFault{refusedUpload(pds.TooLarge, 413)}
	}
	r.reopen(withDocuments())
	r.drain()
	r.checkDocuments(1)
	r.checkPicture("v1")
	if letters := r.letters(); len(letters) != 0 {
		t.Errorf("dead letters: %v", letters)
	}
}

// With on_delete: delete a document is deleted with its post, and the version with its page.
func TestDocumentRetracted(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	cfg := withDocuments()
	cfg.Retract = true
	r.reopen(cfg)
	p := image("a", 3).as("oss/app", "v1")
	r.push(p)
	r.drain()
	r.checkDocuments(1)
	r.delete(p)
	r.until("the post is deleted", func() bool { return len(r.posts()) == 0 })
	if n := len(r.stored(lexicon.NSIDDocument)); n != 0 {
		t.Errorf("got %d documents, want none", n)
	}
	r.drain()
	if _, ok, err := versions.New(r.state).Get("oss/app", "v1"); ok || err != nil {
		t.Errorf("the version is there: %v, %v", ok, err)
	}
}

// After the state is lost, versions have their documents by what their posts name.
func TestDocumentRebuilt(t *testing.T) {
	t.Parallel()
	r := newDocumentRig(t)
	r.push(image("a", 3).as("oss/app", "v1"))
	r.drain()
	key := onlyRecord(r.stored(lexicon.NSIDDocument)).RKey
	r.stop()
	if err := os.RemoveAll(filepath.Join(r.dir, "state")); err != nil {
		t.Fatal(err)
	}
	r.open(withDocuments())
	r.push(image("b", 1).as("oss/app", "v2"))
	r.drain()
	r.checkDocuments(2)
	v, ok, err := versions.New(r.state).Get("oss/app", "v1")
	if err != nil || !ok || v.Document != key {
		t.Errorf("got %+v, %v, %v, want the document %s", v, ok, err, key)
	}
}
