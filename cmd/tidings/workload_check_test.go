package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/post"
	"github.com/tidings-dev/tidings/notifier/state"
)

// checkLog searches the log of a process that has ended for errors and unexpected
// warnings.
func (h *workload) checkLog() { h.checkLogOf(h.server) }

// checkLogOf is checkLog of another process.
func (h *workload) checkLogOf(s *server) {
	if s.log == nil || s.cmd != nil {
		return
	}
	for line := range strings.Lines(s.log.String()) {
		bad := strings.Contains(line, "level=ERROR") || strings.Contains(line, "panic") || strings.Contains(line, "DATA RACE") ||
			strings.Contains(line, "level=WARN")
		ok := func(s string) bool { return strings.Contains(line, s) }
		if bad && !slices.ContainsFunc(h.expected, ok) {
			h.problems = append(h.problems, strings.TrimSpace(line))
		}
	}
	s.log = nil
}

// expectedWarnings are logged because of a test's hostname and after a kill.
var expectedWarnings = []string{
	"this identity is for testing",
	"truncating an incomplete write at the end of the journal",
	"truncating the journal before a segment whose header a crash left incomplete",
}

// restartUntilIdle starts and stops the registry until no event is pending, no intent is open
// and no comparison of storage and ledger is pending.
func (h *workload) restartUntilIdle(t *testing.T) {
	t.Helper()
	for i := range 10 {
		h.start()
		h.waitDrained()
		if h.redis != nil {
			h.waitPublishing(t)
		}
		time.Sleep(time.Duration(i) * time.Second) // a comparison may still be running when no event is pending
		h.waitDrained()
		h.stop()
		h.checkLog()
		if h.openIntents() == 0 && !h.comparisonPending() {
			return
		}
	}
	t.Errorf("%d open intents, comparison pending: %v", h.openIntents(), h.comparisonPending())
}

// openIntents counts the open intents in the journal of a stopped registry.
func (s *server) openIntents() int {
	s.t.Helper()
	j, err := journal.Open(journal.Config{Dir: s.data("journal"), SegmentSize: 16 << 20, Limit: 1 << 30})
	if err != nil {
		s.t.Fatal(err)
	}
	defer j.Close()
	return len(j.Unresolved())
}

// comparisonPending reports whether storage and ledger are still to be compared.
func (s *server) comparisonPending() bool {
	s.t.Helper()
	db, err := state.Open(state.Config{Dir: s.data("state")})
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.Close()
	_, err = store.Read(db, []byte("b/reconcile"))
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		s.t.Fatal(err)
	}
	return err == nil
}

// checkConsistent runs `reconcile` and `hold verify` on a stopped registry.
func (s *server) checkConsistent(t *testing.T) {
	t.Helper()
	for _, command := range [][]string{{"reconcile", s.config}, {"hold", "verify", s.config}} {
		if out, err := s.command(command...).CombinedOutput(); err != nil || strings.Contains(string(out), "pending") {
			t.Errorf("%s: %v\n%s", strings.Join(command, " "), err, out)
		}
	}
}

// A snapshot has the contents of a registry and its account, as clients see them.
type snapshot struct {
	stored map[string]map[string]bool // by repository and digest
	tags   map[string]map[string]string
	layers map[string]map[string]int // records, by manifest and layer
	posts  map[string]int            // by "repository@digest"
}

// snapshot reads the contents of a running registry.
func (h *workload) snapshot(t *testing.T) snapshot {
	t.Helper()
	f := snapshot{map[string]map[string]bool{}, map[string]map[string]string{}, map[string]map[string]int{}, map[string]int{}}
	for name, repoLog := range h.repos {
		f.stored[name], f.tags[name] = map[string]bool{}, map[string]string{}
		for _, d := range repoLog.known {
			if res := h.head(t, name, d); res.StatusCode == 200 {
				f.stored[name][d] = true
			}
		}
		var list struct{ Tags []string }
		if len(repoLog.known) > 0 {
			if res, body, err := h.do("GET", "/v2/"+name+"/tags/list", "", nil); err != nil || res.StatusCode != 404 && json.Unmarshal(body, &list) != nil {
				t.Fatalf("tags of %s: %v %s", name, err, body)
			}
		}
		for _, tag := range list.Tags {
			f.tags[name][tag] = h.head(t, name, tag).Header.Get("Docker-Content-Digest")
		}
	}
	prefix := "at://" + unescaped(h.did) + "/io.atcr.manifest/"
	for _, r := range h.records(t, h.did, layerCollection) {
		hex, ok := strings.CutPrefix(r.Value["manifest"].(string), prefix)
		if !ok {
			t.Errorf("record of an unexpected manifest %v", r.Value["manifest"])
		}
		manifest := "sha256:" + hex
		if f.layers[manifest] == nil {
			f.layers[manifest] = map[string]int{}
		}
		f.layers[manifest][r.Value["digest"].(string)]++
	}
	for _, r := range h.records(t, h.did, postCollection) {
		image, ok := post.Origin(r.Value)
		if text, _ := r.Value["text"].(string); !ok && summaryText.MatchString(text) {
			continue
		}
		if !ok {
			t.Errorf("post without an image: %v", r.Value)
		}
		f.posts[image.Repository+"@"+image.Digest]++
	}
	return f
}

// summaryText is the text of a summary of images that look too old for posts of their own.
var summaryText = regexp.MustCompile(`^\d+ images? (was|were) pushed `)

func public(name string) bool { return strings.HasPrefix(name, "oss/") }

// checkRecords checks that each manifest of a public repository has one record for
// each of its layers, and that there are no others.
func (h *workload) checkRecords(t *testing.T, f snapshot) (records int) {
	t.Helper()
	for _, d := range h.order {
		want := map[string]int{}
		for name := range f.stored {
			if public(name) && f.stored[name][d] {
				for _, layer := range h.layersOf(d) {
					want[layer] = 1
				}
			}
		}
		records += len(want)
		if fmt.Sprint(want) != fmt.Sprint(f.layers[d]) && len(want)+len(f.layers[d]) > 0 {
			t.Errorf("%s: records %v, want %v", d, f.layers[d], want)
		}
		delete(f.layers, d)
	}
	for d := range f.layers {
		t.Errorf("unexpected records of %s, which was never pushed", d)
	}
	return records
}

// layersOf returns the digests of the layers of an image. Its first blob is its
// config.
func (h *workload) layersOf(d string) (layers []string) {
	for i, b := range h.images[d].blobs {
		if i > 0 {
			layers = append(layers, digest.FromBytes(b).String())
		}
	}
	return layers
}

// checkUniquePosts checks that no image has two posts and no private image has one.
func (h *workload) checkUniquePosts(t *testing.T, f snapshot) {
	t.Helper()
	for image, n := range f.posts {
		if n > 1 || !public(image) {
			t.Errorf("%s has %d posts", image, n)
		}
	}
}

// checkExpectedPosts checks that each acknowledged push has a post, unless a later
// request could prevent it.
func (h *workload) checkExpectedPosts(t *testing.T, f snapshot) {
	t.Helper()
	expected := 0
	for name, repoLog := range h.repos {
		missing := map[string]bool{}
		for c := range repoLog.confirmed {
			tag, d := c[0], c[1]
			if !public(name) || repoLog.deleted[d] || repoLog.untagged[tag] || len(repoLog.tagged[tag]) > 1 || missing[d] || h.maybeEmpty(repoLog, d) {
				continue
			}
			expected++
			if f.posts[name+"@"+d] == 0 {
				missing[d] = true
				t.Errorf("%s:%s@%s, %s, has no post; its pushes:\n%s", name, tag, d, h.images[d].mediaType, h.pushesOf(t, name, d))
			}
		}
	}
	t.Logf("at least %d posts expected", expected)
}

// maybeEmpty reports whether all images of an index may have been deleted before
// it was announced.
func (h *workload) maybeEmpty(repoLog *repoLog, digest string) bool {
	m := h.images[digest]
	if m.mediaType != ociIndex {
		return false
	}
	var index struct{ Manifests []struct{ Digest string } }
	if err := json.Unmarshal(m.payload, &index); err != nil {
		h.t.Fatal(err)
	}
	for _, child := range index.Manifests {
		if !repoLog.deleted[child.Digest] {
			return false
		}
	}
	return true
}

// pushesOf returns what the API says of the pushes of an image, a line for each.
func (s *server) pushesOf(t *testing.T, repository, digest string) string {
	t.Helper()
	var answer struct{ Pushes []json.RawMessage }
	s.json(t, "/tidings/api/v1/pushes?limit=1000&repository="+repository, &answer, s.token()...)
	var lines []string
	for _, push := range answer.Pushes {
		if line := string(push); strings.Contains(line, repository) && strings.Contains(line, digest) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

// checkCounts checks that all answered requests are counted, and no more than were sent.
func (h *workload) checkCounts(t *testing.T) {
	t.Helper()
	if h.redis != nil {
		h.checkSums(t)
		return
	}
	for _, name := range h.names {
		repoLog := h.repos[name]
		var n struct{ Counts map[string]int64 }
		if repoLog.put+repoLog.got == 0 {
			continue // the API may not list it
		}
		h.json(t, "/tidings/api/v1/repositories/"+name, &n, h.token()...)
		pulls := n.Counts["pull"] + n.Counts["child"]
		within(t, name+" pulls", repoLog.got, pulls, repoLog.gets)
		within(t, name+" pushes", repoLog.put, n.Counts["push"], repoLog.puts)
		t.Logf("%s: pulls answered %d, counted %d, sent %d; pushes answered %d, counted %d, sent %d",
			name, repoLog.got, pulls, repoLog.gets, repoLog.put, n.Counts["push"], repoLog.puts)
	}
}

// check checks the invariants of a registry, which is stopped before and after: it has
// the records of the images in storage, unique posts, and the counts of the answered
// requests. More checks run before it is stopped again.
func (h *workload) check(t *testing.T, more ...func(snapshot)) {
	t.Helper()
	h.restartUntilIdle(t)
	h.checkConsistent(t)
	h.start()
	h.checkCounts(t)
	f := h.snapshot(t)
	records := h.checkRecords(t, f)
	h.checkUniquePosts(t, f)
	for _, check := range more {
		check(f)
	}
	h.verifyRepo()
	h.waitDrained()
	h.stop()
	h.checkLog()
	h.checkConsistent(t)
	t.Logf("%d operations; %d images, %d records, %d posts", h.steps.Load(), len(h.order), records, len(f.posts))
	for _, p := range h.problems {
		t.Error(p)
	}
	h.problems = nil
}
