package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/terminal"
	"github.com/tidings-dev/tidings/notifier/announce"
)

// The posts of a running registry are listed, and deleted once they are confirmed.
func TestAnnounceListAndDelete(t *testing.T) {
	t.Parallel()
	s := newServer(t, settings{options: `announce: {tags: ["v*"], collect: 0s, cooldown: 0s, daily_limit: 0, card: false}`})
	list := []string{"announce", "list", s.config}
	expect(t, s.dir, 1, list, "the registry is not running, and this command needs it")
	s.start()
	expect(t, s.dir, 0, list)
	for _, name := range []string{"oss/app", "oss/db"} {
		s.push(t, name, "v1.0.0", newImage(1))
		s.waitDrained()
	}
	var posts []announce.Announcement
	out := expect(t, s.dir, 0, append(list, "--json"))
	for line := range strings.Lines(out) {
		var a announce.Announcement
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		posts = append(posts, a)
	}
	if len(posts) != 2 || posts[0].Repository != "oss/db" || posts[1].Repository != "oss/app" {
		t.Fatalf("got %s, want oss/db and oss/app", out)
	}
	uri := posts[1].URI
	expect(t, s.dir, 0, append(list, "--repository", "oss/a*"), "  posted  "+uri+"  oss/app:v1.0.0  one version")
	if out := expect(t, s.dir, 0, append(list, "--limit", "1")); strings.Contains(out, "oss/app") {
		t.Errorf("with --limit 1: %s", out)
	}
	expect(t, s.dir, 1, append(list, "--repository", "oss/[a"), "[")

	remove := []string{"announce", "delete", s.config}
	expect(t, s.dir, 1, append(remove, uri), "oss/app:v1.0.0", "Delete 1 post for good? [y/N]", "pass --yes to skip the question")
	expect(t, s.dir, 1, append(remove, "at://did:web:other.example.com/app.bsky.feed.post/3mabcdefghijk", "--yes"), "is of did:web:other.example.com, and the account is did:web:localhost")
	if err := announceDelete(t.Context(), strings.NewReader("no\n"), new(bytes.Buffer), new(bytes.Buffer), []string{s.config, uri}, false); !errors.Is(err, terminal.ErrDeclined) {
		t.Errorf("the answer no: %v, want that it is declined", err)
	}
	if n := len(s.records(t, s.did, postCollection)); n != 2 {
		t.Fatalf("%d posts, want 2", n)
	}
	if err := announceDelete(t.Context(), strings.NewReader("y\n"), new(bytes.Buffer), new(bytes.Buffer), []string{s.config, uri}, false); err != nil {
		t.Fatal(err)
	}
	if left := s.records(t, s.did, postCollection); len(left) != 1 || left[0].URI != posts[0].URI {
		t.Errorf("the posts are %v, want %s", left, posts[0].URI)
	}
	expect(t, s.dir, 0, list, "withdrawn", "posted")
	expect(t, s.dir, 1, append(remove, uri), "is already deleted (withdrawn)")
	expect(t, s.dir, 1, append(remove, uri, "--yes"), "the post is already deleted (withdrawn, ")
	expect(t, s.dir, 0, append(remove, posts[0].URI, "--yes"), posts[0].URI+" is deleted.")
	if left := s.records(t, s.did, postCollection); len(left) != 0 {
		t.Errorf("the posts are %v, want none", left)
	}
}

// withoutWrites responds as the PDS does, except to writes, which fail.
func (p *fakePDS) withoutWrites(w http.ResponseWriter, r *http.Request) {
	if strings.HasSuffix(r.URL.Path, ".applyWrites") {
		http.Error(w, "out of order", http.StatusBadGateway)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.serve(w, r)
}

// A post on another PDS is deleted there, also if the process is killed before. One that its owner has deleted is known as deleted.
func TestAnnounceDeleteOnPDS(t *testing.T) {
	t.Parallel()
	s := newAccountServer(t, fakeHandle)
	s.start()
	for _, tag := range []string{"v1.0.0", "v2.0.0"} {
		s.push(t, "oss/"+tag, tag, newImage(1))
		s.waitDrained()
	}
	var uris []string
	for line := range strings.Lines(expect(t, s.dir, 0, []string{"announce", "list", s.config})) {
		uris = append(uris, strings.Fields(line)[2])
	}
	if len(uris) != 2 || s.pds.count(postCollection) != 2 {
		t.Fatalf("%d posts are listed, and the PDS has %d, want 2", len(uris), s.pds.count(postCollection))
	}
	remove := []string{"announce", "delete", s.config, "--yes"}
	s.pds.set(func(p *fakePDS) { p.fault = s.pds.withoutWrites })
	expect(t, s.dir, 0, append(remove, uris[0]), uris[0]+" is withdrawn, and will be deleted: the account cannot be written to at the moment")
	expect(t, s.dir, 0, []string{"announce", "list", s.config}, "being deleted")
	s.kill()
	s.pds.set(func(p *fakePDS) { p.fault = nil })
	s.start()
	for end := time.Now().Add(30 * time.Second); s.pds.count(postCollection) == 2 && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
	}
	if n := s.pds.count(postCollection); n != 1 {
		t.Errorf("after a kill the PDS has %d posts, want 1", n)
	}
	s.pds.set(func(p *fakePDS) {
		record := postCollection + "/" + path.Base(uris[1])
		delete(p.records, record)
		delete(p.values, record)
	})
	expect(t, s.dir, 0, []string{"announce", "list", s.config}, "deleted in the account")
	expect(t, s.dir, 0, append(remove, uris[1]), uris[1]+" is withdrawn; the account did not have it any more.")
}
