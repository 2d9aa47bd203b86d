package main

import (
	"maps"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
)

// layersOf are the paths of the layer records of images.
func (s *accountServer) layersOf(images ...image) []string {
	var paths []string
	for path, record := range s.pds.all(lexicon.NSIDLayer) {
		_, manifest, _ := lexicon.ParseManifestURI(record["manifest"].(string))
		if slices.ContainsFunc(images, func(m image) bool { return m.digest == manifest }) {
			paths = append(paths, path)
		}
	}
	return paths
}

// postsOf are the paths of the posts whose text begins with a text, and of their documents.
func (s *accountServer) postsOf(text string) []string {
	var paths []string
	documents := s.pds.all(lexicon.NSIDDocument)
	for post, record := range s.pds.all(lexicon.NSIDPost) {
		if !strings.HasPrefix(record["text"].(string), text) {
			continue
		}
		paths = append(paths, post)
		if document := lexicon.NSIDDocument + "/" + path.Base(post); documents[document] != nil {
			paths = append(paths, document)
		}
	}
	return paths
}

// withoutStats lets the registry write no records of counts, since the time at which it does
// is not that of a test.
func (s *accountServer) withoutStats() {
	s.edit("api: {token_file", "stats: {records: off}\n        api: {token_file")
}

// addForeign adds records of other programs to the account, which must stay as they are, and
// returns their key.
func (s *accountServer) addForeign(m image) string {
	key := "3kaaaaaaaaa27"
	if strings.HasSuffix(s.pds.paths()[0], "27") { // the clock id of the registry
		key = "3kaaaaaaaaa28"
	}
	s.pds.put(s.t, lexicon.NSIDLayer+"/"+key, lexicon.Layer{
		Digest: "sha256:" + strings.Repeat("a", 64), Size: 1, MediaType: "application/octet-stream", Manifest: lexicon.ManifestURI(fakeDID, m.digest),
		UserDID: fakeDID, CreatedAt: "2026-01-01T00:00:00Z",
	})
	s.pds.put(s.t, lexicon.NSIDPost+"/"+key, map[string]any{"$type": lexicon.NSIDPost, "text": "oss/app is great", "createdAt": "2026-01-01T00:00:00Z"})
	return key
}

// wantPaths checks that the account has exactly some records.
func (s *accountServer) wantPaths(what string, before, removed []string) {
	s.t.Helper()
	want := slices.DeleteFunc(slices.Clone(before), func(path string) bool { return slices.Contains(removed, path) })
	if len(want) != len(before)-len(removed) {
		s.t.Errorf("%s: not all of %q were there", what, removed)
	}
	got := s.pds.paths()
	for _, path := range got {
		if !slices.Contains(want, path) {
			s.t.Errorf("%s: the account has %s", what, path)
		}
	}
	for _, path := range want {
		if !slices.Contains(got, path) {
			s.t.Errorf("%s: the account does not have %s", what, path)
		}
	}
}

// waitFor waits until the account has so many records.
func (s *accountServer) waitFor(records int) {
	s.t.Helper()
	s.waitDrained()
	for end := time.Now().Add(15 * time.Second); len(s.pds.paths()) != records; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("want %d records, the account has %q\n%s", records, s.pds.paths(), s.log)
		}
	}
}

// On an account of another PDS gc removes exactly the records and posts of the manifests that
// are gone from storage.
func TestAccountGC(t *testing.T) {
	t.Parallel()
	s := newAccountServer(t, fakeHandle)
	s.withoutStats()
	s.edit("daily_limit: 0}", "daily_limit: 0, on_delete: delete}")
	s.start()
	kept, gone, shared := newImage(2), newImage(3), newImage(2)
	s.push(t, "oss/app", "v1", kept)
	s.push(t, "oss/app", "v2", gone)
	s.push(t, "oss/app", "v3", shared)
	s.push(t, "oss/other", "v3", shared)
	s.waitFor(2 + 3 + 2 + 4)
	s.stop()
	foreign := s.addForeign(gone)
	s.deleteBehind([]storedImage{{repository: "oss/app", digest: gone.digest}, {repository: "oss/app", digest: shared.digest}})
	// garbage-collect keeps the revision of a manifest that another repository has.
	revisions := filepath.Join(s.dir, "registry/docker/registry/v2/repositories/oss/app/_manifests/revisions/sha256")
	if err := os.RemoveAll(filepath.Join(revisions, strings.TrimPrefix(shared.digest, "sha256:"))); err != nil {
		t.Fatal(err)
	}
	s.start()
	before := s.pds.paths()
	removed := append(s.layersOf(gone), slices.Concat(s.postsOf("oss/app:v2"), s.postsOf("oss/app:v3"))...)
	removed = slices.DeleteFunc(removed, func(path string) bool { return strings.HasSuffix(path, foreign) })
	out, code := s.run("gc", s.config)
	if code != 0 || !strings.Contains(out, "oss/app@"+gone.digest) || !strings.Contains(out, "oss/app@"+shared.digest) || !strings.Contains(out, "2 manifests with records not in storage") {
		t.Errorf("gc: exit code %d\n%s", code, out)
	}
	s.waitDrained()
	s.wantPaths("after gc without --delete", before, nil)
	if out, code := s.run("gc", "--delete", s.config); code != 0 || !strings.Contains(out, "The records of 2 manifests are being removed") {
		t.Errorf("gc --delete: exit code %d\n%s", code, out)
	}
	s.waitFor(len(before) - len(removed))
	s.wantPaths("after gc --delete", before, removed)
	if out, code := s.run("gc", "--delete", s.config); code != 0 || !strings.Contains(out, "Each manifest with records is in the registry's storage") {
		t.Errorf("gc --delete again: exit code %d\n%s", code, out)
	}
	s.stop()
	if out, code := s.run("reconcile", s.config); code != 0 {
		t.Errorf("reconcile: exit code %d\n%s", code, out)
	}
}

// On an account of another PDS a purge removes exactly the records, posts, documents and
// counts of the repository, and drops what waits to be announced.
func TestAccountPurge(t *testing.T) {
	t.Parallel()
	s := newPublicationServer(t)
	s.withoutStats()
	s.edit("cooldown: 0s", "cooldown: 10m")
	s.start()
	own, shared, waiting := newImage(2), newImage(1), newImage(1)
	s.push(t, "oss/other", "v2", shared)
	s.push(t, "oss/app", "v1", own)
	s.waitFor(1 + 2 + 4 + 1)
	s.push(t, "oss/app", "v2", shared)
	s.push(t, "oss/app", "v3", waiting)
	s.waitFor(9)
	foreign := s.addForeign(own)
	for _, repository := range []string{"oss/app", "oss/other"} {
		s.pds.put(t, lexicon.NSIDStats+"/"+lexicon.StatsKey(fakeDID, repository), lexicon.Stats{
			OwnerDID: fakeDID, Repository: repository, PullCount: 1, PushCount: 1, UpdatedAt: "2026-01-01T00:00:00Z",
		})
	}
	before := s.pds.paths()
	removed := append(s.layersOf(own, waiting), s.postsOf("oss/app:v1")...)
	removed = append(removed, lexicon.NSIDStats+"/"+lexicon.StatsKey(fakeDID, "oss/app"))
	removed = slices.DeleteFunc(removed, func(path string) bool { return strings.HasSuffix(path, foreign) })
	if len(removed) != 2+1+2+1 {
		t.Fatalf("records of oss/app: %q of %q", removed, before)
	}
	const question = "Purge oss/app: 3 records of 3 manifests, 1 post, 2 versions not announced yet, the counts?"
	if out, code := s.run("purge", s.config, "oss/app"); code == 0 || !strings.Contains(out, question) {
		t.Errorf("without an answer: exit code %d\n%s", code, out)
	}
	s.waitDrained()
	s.wantPaths("after a purge without an answer", before, nil)
	if out, code := s.run("purge", "--yes", s.config, "oss/app"); code != 0 {
		t.Errorf("exit code %d\n%s", code, out)
	}
	s.waitFor(len(before) - len(removed))
	s.wantPaths("after the purge", before, removed)
	if out, code := s.run("purge", s.config, "oss/app"); code == 0 || !strings.Contains(out, "Nothing is published of oss/app. Purge it anyway") {
		t.Errorf("after the purge: exit code %d\n%s", code, out)
	}
	s.stop()
	if out, code := s.run("reconcile", s.config); code != 0 {
		t.Errorf("reconcile: exit code %d\n%s", code, out)
	}
}

// `reconcile --fix` lets the next start repair what differs on an account of another PDS,
// also if it is killed meanwhile, and a further start repairs nothing. The health and the
// status show the repair while it runs.
func TestAccountReconcileFix(t *testing.T) {
	t.Parallel()
	s := newAccountServer(t, fakeHandle)
	s.withoutStats()
	s.edit("log: {level: warn", "log: {level: info")
	s.start()
	kept, gone, hurt := newImage(2), newImage(3), newImage(2)
	s.push(t, "oss/app", "v1", kept)
	s.push(t, "oss/app", "v2", gone)
	s.push(t, "oss/app", "v3", hurt)
	s.waitFor(2 + 3 + 2 + 3)
	s.stop()
	foreign := s.addForeign(newImage(1))
	s.pds.remove(s.layersOf(hurt)[0])
	s.deleteBehind([]storedImage{{repository: "oss/app", digest: gone.digest}})
	stay := slices.Concat(s.layersOf(kept), s.postsOf(""), []string{lexicon.NSIDLayer + "/" + foreign})
	slices.Sort(stay)

	out, code := s.run("reconcile", s.config)
	if code != 2 || !strings.Contains(out, "record: ") || !strings.Contains(out, "stale: ") || !strings.Contains(out, "2 differences; `tidings reconcile --fix "+s.config+"` lets the next start repair them") {
		t.Fatalf("reconcile: exit code %d\n%s", code, out)
	}
	out, code = s.run("reconcile", "--fix", s.config)
	if code != 2 || !strings.Contains(out, "2 differences; the repair of them runs at the next start (`tidings serve "+s.config+"`)") {
		t.Fatalf("reconcile --fix: exit code %d\n%s", code, out)
	}
	s.pds.set(func(p *fakePDS) { p.fault = http.NotFound })
	for range 2 {
		s.start()
		const phase = "the ledger is rebuilt from the account's records"
		if health := s.fetch("/tidings/api/v1/health"); !strings.Contains(health, `"repair":"`+phase+`"`) {
			t.Errorf("health before the repair: %s", health)
		}
		if out, _ := s.run("status", s.config); !strings.Contains(out, phase) {
			t.Errorf("status before the repair: %s", out)
		}
		s.kill()
	}
	s.pds.set(func(p *fakePDS) { p.fault = nil })
	s.start()
	s.until(t, "the repair has ended", func() bool { return !strings.Contains(s.fetch("/tidings/api/v1/health"), `"repair"`) })
	s.waitDrained()
	if got := s.log.String(); strings.Count(got, "the ledger is rebuilt from the account's records") != 1 {
		t.Errorf("the log of the repair:\n%s", got)
	}
	if layers := s.layersOf(hurt); len(layers) != 2 || len(s.layersOf(gone)) != 0 {
		t.Errorf("%d records of the image that lacked one, %d of the deleted one", len(layers), len(s.layersOf(gone)))
	}
	paths := s.pds.paths()
	for _, path := range stay {
		if !slices.Contains(paths, path) {
			t.Errorf("the account does not have %s any more", path)
		}
	}
	if len(paths) != len(stay)+2 {
		t.Errorf("%d records, want %d: %q", len(paths), len(stay)+2, paths)
	}
	s.stop()
	if out, code := s.run("reconcile", s.config); code != 0 {
		t.Errorf("reconcile after the repair: exit code %d\n%s", code, out)
	}
	values := maps.Clone(s.pds.records)
	s.start()
	s.waitDrained()
	if log := s.log.String(); strings.Contains(log, "rebuilt") || strings.Contains(log, "comparing the registry's storage") {
		t.Errorf("a further start repairs again:\n%s", log)
	}
	if health := s.fetch("/tidings/api/v1/health"); strings.Contains(health, `"repair"`) {
		t.Errorf("health after the repair: %s", health)
	}
	s.stop()
	if !maps.Equal(values, s.pds.records) {
		t.Error("a further start changes records")
	}
}
