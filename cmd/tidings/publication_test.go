package main

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/lexicon"
)

// newPublicationServer is a registry that is a publication, whose pages are at
// https://registry.example.com.
func newPublicationServer(t *testing.T) *accountServer {
	t.Helper()
	s := newAccountServer(t, fakeDID)
	s.edit("  draintimeout: 10s", "  draintimeout: 10s\n  host: https://registry.example.com")
	s.edit("daily_limit: 0}", "daily_limit: 0, appview: off, publication: {description: All images}}\n        stats: {records: off}")
	return s
}

// all returns the records of a collection by their paths.
func (p *fakePDS) all(collection string) map[string]map[string]any {
	p.mu.Lock()
	defer p.mu.Unlock()
	found := map[string]map[string]any{}
	for path, value := range p.values {
		if strings.HasPrefix(path, collection+"/") {
			found[path], _ = lexicon.Unmarshal(value)
		}
	}
	return found
}

// id is the CID of a record.
func (p *fakePDS) id(path string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.records[path]
}

// checkPublication checks that each post has a document that names it, and that it names the
// first version of the document, as AppViews and readers expect it.
func (s *accountServer) checkPublication(want int) {
	t := s.t
	t.Helper()
	sites, documents, posts := s.pds.all(lexicon.NSIDPublication), s.pds.all(lexicon.NSIDDocument), s.pds.all(lexicon.NSIDPost)
	if len(sites) != 1 || len(documents) != want || len(posts) != want {
		t.Fatalf("got %d publications, %d documents and %d posts, want 1, %d and %d\n%s", len(sites), len(documents), len(posts), want, want, s.log)
	}
	for sitePath, site := range sites {
		for path, document := range documents {
			post := posts[strings.Replace(path, lexicon.NSIDDocument, lexicon.NSIDPost, 1)]
			embed, _ := post["embed"].(map[string]any)
			external, _ := embed["external"].(map[string]any)
			if external["uri"] != site["url"].(string)+document["path"].(string) || document["site"] != "at://"+fakeDID+"/"+sitePath {
				t.Errorf("the card leads to %v, want %v + %v of the site %v", external["uri"], site["url"], document["path"], document["site"])
			}
			refs, _ := external["associatedRefs"].([]any)
			if len(refs) != 2 {
				t.Fatalf("the card refers to %v", refs)
			}
			postPath := strings.Replace(path, lexicon.NSIDDocument, lexicon.NSIDPost, 1)
			for _, pair := range []struct {
				ref      any
				path, id string
			}{
				{refs[0], path, firstID(t, document)}, {refs[1], sitePath, s.pds.id(sitePath)}, {document["bskyPostRef"], postPath, s.pds.id(postPath)},
			} {
				ref, _ := pair.ref.(map[string]any)
				if ref["uri"] != "at://"+fakeDID+"/"+pair.path || ref["cid"] != pair.id {
					t.Errorf("got the reference %v, want %s with the CID %s", ref, pair.path, pair.id)
				}
			}
			page := strings.TrimPrefix(external["uri"].(string), "https://registry.example.com")
			if got := s.fetch(page); !strings.Contains(got, `<link rel="site.standard.document" href="at://`+fakeDID+"/"+path+`">`) {
				t.Errorf("%s does not link to its document:\n%s", page, got)
			}
		}
		if got := s.fetch("/.well-known/site.standard.publication"); got != "at://"+fakeDID+"/"+sitePath {
			t.Errorf("the publication is %q, want %s", got, sitePath)
		}
	}
}

// firstID is the CID of a document as it was written with its post.
func firstID(t *testing.T, document map[string]any) string {
	t.Helper()
	first := maps.Clone(document)
	delete(first, "bskyPostRef")
	encoded, err := lexicon.Encode(first)
	if err != nil {
		t.Fatal(err)
	}
	return block.CIDOf(encoded).String()
}

// On an account of another PDS, documents are written with their posts, and then updated once.
func TestAccountPublication(t *testing.T) {
	t.Parallel()
	s := newPublicationServer(t)
	s.start()
	s.push(t, "oss/app", "v1.0.0", newImage(2))
	s.waitPublished(1)
	s.checkPublication(1)
	// Two layers, a post, a document and the publication, 3 points each, and 2 for the update.
	if got, want := metric(t, s.debug, `tidings_account_points_left{window="hour"}`), "4983"; got != want {
		t.Errorf("got %s points left, want %s", got, want)
	}

	s.kill()
	s.start()
	s.push(t, "oss/app", "v1.1.0", newImage(2))
	s.waitPublished(2)
	s.checkPublication(2)

	// Earlier posts name the publication as it was.
	s.kill()
	s.edit("description: All images", "description: More images")
	s.start()
	updated := func() bool {
		for _, site := range s.pds.all(lexicon.NSIDPublication) {
			return site["description"] == "More images"
		}
		return false
	}
	for end := time.Now().Add(20 * time.Second); !updated(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the publication is not updated: %v", s.pds.all(lexicon.NSIDPublication))
		}
	}
	if n := s.pds.count(lexicon.NSIDPublication); n != 1 {
		t.Errorf("got %d publications, want 1", n)
	}
}

// Each fault of the call that writes a post with its document. Both are written once.
func TestAccountPublicationFaults(t *testing.T) {
	t.Parallel()
	for name, applied := range map[string]bool{"failed and not applied": false, "failed yet applied": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newPublicationServer(t)
			faults := s.loseDocuments(applied)
			s.start()
			s.push(t, "oss/app", "v1.0.0", newImage(2))
			s.waitPublished(1)
			s.checkPublication(1)
			if n := faults.Load(); n != 1 {
				t.Errorf("got %d faults, want 1", n)
			}
		})
	}
}

// loseDocuments makes the first call that writes a document fail, after it was applied or
// before, and returns how many calls have failed.
func (s *accountServer) loseDocuments(applied bool) *atomic.Int32 {
	var faults atomic.Int32
	fault := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		lost := strings.HasSuffix(r.URL.Path, "applyWrites") && bytes.Contains(body, []byte(lexicon.NSIDDocument)) && faults.CompareAndSwap(0, 1)
		s.pds.mu.Lock()
		defer s.pds.mu.Unlock()
		switch {
		case !lost:
			s.pds.serve(w, r)
			return
		case applied:
			s.pds.serve(httptest.NewRecorder(), r)
		}
		panic(http.ErrAbortHandler)
	}
	s.pds.set(func(p *fakePDS) { p.fault = fault })
	return &faults
}
