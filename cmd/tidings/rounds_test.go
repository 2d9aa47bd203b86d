package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/opencontainers/go-digest"
	"github.com/redis/go-redis/v9"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/post"
	"github.com/tidings-dev/tidings/notifier/state"
)

// A history drives a registry with random requests and keeps what was asked and
// what was answered, so that in the end everything that the registry has can be
// compared with it. It is safe for concurrent use.
type history struct {
	*server
	seed uint64

	mu     sync.Mutex
	images map[string]image // by digest
	order  []string         // digests, as they were made
	repos  map[string]*told
	names  []string
	tags   atomic.Int64 // to name them
	steps  atomic.Int64 // requests that were answered

	redis redis.UniversalClient // where it counts, if not nil

	expected []string // parts of warnings in the log that are no problem
	problems []string // of the logs of processes that have ended
}

// told is what one repository was told.
type told struct {
	asked     map[string]bool            // digests that a PUT was sent for
	has       map[string]bool            // digests whose blobs are there
	deleted   map[string]bool            // digests that a DELETE was sent for
	tagged    map[string]map[string]bool // digests that a PUT was sent for, by tag
	untagged  map[string]bool            // tags that a DELETE was sent for
	confirmed map[[2]string]bool         // tag and digest of PUTs that were answered 201
	known     []string                   // digests that were put, as they came
	names     []string                   // tags

	gets, got, puts, put int64
}

// roundsSeed is TIDINGS_ROUNDS_SEED, or another one each time.
func roundsSeed(t *testing.T) uint64 {
	seed := rand.Uint64N(1_000_000)
	if s := os.Getenv("TIDINGS_ROUNDS_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("TIDINGS_ROUNDS_SEED: %v", err)
		}
		seed = n
	}
	t.Logf("TIDINGS_ROUNDS_SEED=%d", seed)
	return seed
}

// newHistory is of a registry that is not running yet.
func newHistory(t *testing.T, s *server) *history {
	h := &history{server: s, seed: roundsSeed(t), images: map[string]image{}, repos: map[string]*told{}}
	for _, name := range []string{"oss/a", "oss/b", "oss/deep/c", "private/a", "private/b"} {
		h.names = append(h.names, name)
		h.repos[name] = &told{
			asked: map[string]bool{}, has: map[string]bool{}, deleted: map[string]bool{}, tagged: map[string]map[string]bool{},
			untagged: map[string]bool{}, confirmed: map[[2]string]bool{},
		}
	}
	s.edit("level: error", "level: warn")
	h.expected = slices.Clone(expectedWarnings)
	return h
}

const workers = 8

// work lets all workers make requests until stop is closed or the registry is
// gone. The same round gives each the same random numbers.
func (h *history) work(round uint64, stop <-chan struct{}) {
	var group sync.WaitGroup
	for w := range uint64(workers) {
		r := rand.New(rand.NewPCG(h.seed, round<<8|w))
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if !h.step(r) {
					return
				}
				h.steps.Add(1)
			}
		})
	}
	group.Wait()
}

func pause() { time.Sleep(time.Millisecond) }

// step makes one operation and reports whether the registry has answered.
func (h *history) step(r *rand.Rand) bool {
	name := h.names[r.IntN(len(h.names))]
	switch n := r.IntN(100); {
	case n < 28:
		return h.push(name, h.newTag(), h.newImage(r))
	case n < 40: // a second tag, or the same digest in another repository
		return h.push(name, h.newTag(), h.some(r, h.names[r.IntN(len(h.names))]))
	case n < 54: // a tag that moves
		return h.push(name, []string{"latest", "edge"}[r.IntN(2)], h.some(r, name))
	case n < 60:
		return h.untag(name, h.someTag(r, name))
	case n < 72:
		return h.delete(name, h.some(r, name).digest)
	case n < 80:
		return h.push(name, h.newTag(), h.someDeleted(r, name))
	case n < 86:
		return h.pushIndex(r, name)
	case n < 93:
		return h.pull(name, h.some(r, name).digest)
	default:
		return h.pull(name, h.someTag(r, name))
	}
}

func (h *history) newTag() string { return fmt.Sprint("v", h.tags.Add(1)) }

func (h *history) newImage(r *rand.Rand) image {
	m := newImage(1 + r.IntN(3))
	h.mu.Lock()
	defer h.mu.Unlock()
	h.keep(m)
	return m
}

func (h *history) keep(m image) {
	h.images[m.digest] = m
	h.order = append(h.order, m.digest)
}

// some is an image that the repository was told of, more likely a new one.
func (h *history) some(r *rand.Rand, name string) image {
	h.mu.Lock()
	known := h.repos[name].known
	digest := recent(r, known)
	m, ok := h.images[digest]
	h.mu.Unlock()
	if !ok {
		return h.newImage(r)
	}
	return m
}

// recent is one of the last ten twice out of three times.
func recent(r *rand.Rand, list []string) string {
	if len(list) == 0 {
		return ""
	}
	if r.IntN(3) > 0 {
		list = list[max(0, len(list)-10):]
	}
	return list[r.IntN(len(list))]
}

func (h *history) someTag(r *rand.Rand, name string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r.IntN(4) == 0 || len(h.repos[name].names) == 0 {
		return "latest"
	}
	return recent(r, h.repos[name].names)
}

func (h *history) someDeleted(r *rand.Rand, name string) image {
	h.mu.Lock()
	var deleted []string
	for _, d := range h.repos[name].known {
		if h.repos[name].deleted[d] {
			deleted = append(deleted, d)
		}
	}
	m, ok := h.images[recent(r, deleted)]
	h.mu.Unlock()
	if !ok {
		return h.some(r, name)
	}
	return m
}

// push sends what is missing of an image's blobs, and the manifest. It reports
// whether the registry has answered.
func (h *history) push(name, reference string, m image) bool {
	h.mu.Lock()
	has := h.repos[name].has[m.digest]
	h.mu.Unlock()
	if !has {
		if err := h.upload(name, m); err != nil {
			return h.answers()
		}
	}
	h.asking(name, reference, m.digest)
	status, err := h.client.put(name, reference, m)
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.repos[name]
	if status != 201 {
		if status == http.StatusServiceUnavailable { // a 500 is the host's: its tags race with each other
			h.problems = append(h.problems, fmt.Sprintf("PUT %s:%s: %d %v", name, reference, status, err))
		}
		return status != 0
	}
	t.put++
	t.has[m.digest] = true
	if !strings.Contains(reference, ":") {
		t.confirmed[[2]string{reference, m.digest}] = true
	}
	return true
}

// asking notes a PUT before it is sent.
func (h *history) asking(name, reference, digest string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.repos[name]
	t.puts++
	if !t.asked[digest] {
		t.asked[digest] = true
		t.known = append(t.known, digest)
	}
	if strings.Contains(reference, ":") {
		return
	}
	if t.tagged[reference] == nil {
		t.tagged[reference] = map[string]bool{}
		t.names = append(t.names, reference)
	}
	t.tagged[reference][digest] = true
}

// head looks for a manifest.
func (c *client) head(t *testing.T, name, reference string) *http.Response {
	t.Helper()
	res, _, err := c.do("HEAD", "/v2/"+name+"/manifests/"+reference, "", nil, "Accept", acceptAll)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func (h *history) answers() bool {
	res, _, err := h.do("GET", "/v2/", "", nil)
	return err == nil && res.StatusCode == 200
}

// pushIndex pushes two images by digest, and an index of them under a tag.
func (h *history) pushIndex(r *rand.Rand, name string) bool {
	var children []map[string]any
	for _, arch := range []string{"amd64", "arm64"} {
		m := h.newImage(r)
		if r.IntN(3) == 0 {
			m = h.some(r, name)
		}
		if m.mediaType != ociManifest {
			continue
		}
		if !h.push(name, m.digest, m) {
			return false
		}
		children = append(children, map[string]any{
			"mediaType": m.mediaType, "digest": m.digest, "size": len(m.payload),
			"platform": map[string]string{"os": "linux", "architecture": arch},
		})
	}
	index := image{mediaType: ociIndex}
	index.payload, _ = json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": index.mediaType, "manifests": children})
	index.digest = digest.FromBytes(index.payload).String()
	h.mu.Lock()
	h.keep(index)
	h.mu.Unlock()
	return h.push(name, h.newTag(), index)
}

func (h *history) delete(name, digest string) bool {
	h.mu.Lock()
	h.repos[name].deleted[digest] = true
	h.mu.Unlock()
	return h.remove(name, digest)
}

func (h *history) untag(name, tag string) bool {
	h.mu.Lock()
	h.repos[name].untagged[tag] = true
	h.mu.Unlock()
	return h.remove(name, tag)
}

func (h *history) remove(name, reference string) bool {
	res, body, err := h.do("DELETE", "/v2/"+name+"/manifests/"+reference, "", nil)
	if err != nil {
		return false
	}
	if res.StatusCode == http.StatusServiceUnavailable {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.problems = append(h.problems, fmt.Sprintf("DELETE %s %s: %d %s", name, reference, res.StatusCode, body))
	}
	return true
}

func (h *history) pull(name, reference string) bool {
	h.mu.Lock()
	h.repos[name].gets++
	h.mu.Unlock()
	status, err := h.get(name, reference)
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil && status == 200 {
		h.repos[name].got++
	}
	return status != 0
}

// ended looks through the log of a process that has ended. Whatever it says as
// an error is a problem, and so is a warning that is not expected.
func (h *history) ended() {
	if h.log == nil {
		return
	}
	for line := range strings.Lines(h.log.String()) {
		bad := strings.Contains(line, "level=ERROR") || strings.Contains(line, "panic") || strings.Contains(line, "DATA RACE") ||
			strings.Contains(line, "level=WARN")
		ok := func(s string) bool { return strings.Contains(line, s) }
		if bad && !slices.ContainsFunc(h.expected, ok) {
			h.problems = append(h.problems, strings.TrimSpace(line))
		}
	}
	h.log = nil
}

// expectedWarnings are what a test's hostname and a kill leave to say.
var expectedWarnings = []string{
	"this identity is for trying things out",
	"cutting what a crash left unfinished",
	"cutting the journal before a segment whose header a crash left unfinished",
}

// dies is kill -9.
func (h *history) dies() {
	h.kill()
	h.ended()
}

// settle starts and stops the registry until no event is pending, no intent open,
// and storage compared with the ledger if it has to be.
func (h *history) settle(t *testing.T) {
	t.Helper()
	for i := range 10 {
		h.start()
		h.drained()
		if h.redis != nil {
			h.publishes(t)
		}
		time.Sleep(time.Duration(i) * time.Second) // a comparison takes its time, and nothing pending does not end it
		h.drained()
		h.stop()
		h.ended()
		if h.openIntents() == 0 && !h.comparing() {
			return
		}
	}
	t.Errorf("%d intents stay open, comparing: %v", h.openIntents(), h.comparing())
}

// openIntents counts those in the journal of a registry that is not running.
func (s *server) openIntents() int {
	s.t.Helper()
	j, err := journal.Open(journal.Config{Dir: s.data("journal"), SegmentSize: 16 << 20, Limit: 1 << 30})
	if err != nil {
		s.t.Fatal(err)
	}
	defer j.Close()
	return len(j.Unsettled())
}

// comparing reports whether a comparison of storage and ledger is not done yet.
func (s *server) comparing() bool {
	s.t.Helper()
	db, err := state.Open(state.Config{Dir: s.data("state")})
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.Close()
	_, err = store.Read(db, []byte("b/reconcile"))
	if err != nil && !errors.Is(err, pebble.ErrNotFound) {
		s.t.Fatal(err)
	}
	return err == nil
}

// agree checks with the commands of a stopped registry that storage, ledger and
// account agree, and that the account's repository is sound.
func (s *server) agree(t *testing.T) {
	t.Helper()
	for _, command := range [][]string{{"reconcile", "--dry-run", s.config}, {"hold", "verify", s.config}} {
		if out, err := s.command(command...).CombinedOutput(); err != nil || strings.Contains(string(out), "pending") {
			t.Errorf("%s: %v\n%s", strings.Join(command, " "), err, out)
		}
	}
}

// A found is what an account and its registry have, as everybody sees it.
type found struct {
	stored map[string]map[string]bool // by repository and digest
	tags   map[string]map[string]string
	layers map[string]map[string]int // records, by manifest and layer
	posts  map[string]int            // by "repository@digest"
}

// look asks a running registry for all of it.
func (h *history) look(t *testing.T) found {
	t.Helper()
	f := found{map[string]map[string]bool{}, map[string]map[string]string{}, map[string]map[string]int{}, map[string]int{}}
	for name, told := range h.repos {
		f.stored[name], f.tags[name] = map[string]bool{}, map[string]string{}
		for _, d := range told.known {
			if res := h.head(t, name, d); res.StatusCode == 200 {
				f.stored[name][d] = true
			}
		}
		var list struct{ Tags []string }
		if len(told.known) > 0 {
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
			t.Errorf("a record of %v", r.Value["manifest"])
		}
		manifest := "sha256:" + hex
		if f.layers[manifest] == nil {
			f.layers[manifest] = map[string]int{}
		}
		f.layers[manifest][r.Value["digest"].(string)]++
	}
	for _, r := range h.records(t, h.did, postCollection) {
		image, ok := post.Origin(r.Value)
		if !ok {
			t.Errorf("a post of nothing: %v", r.Value)
		}
		f.posts[image.Repository+"@"+image.Digest]++
	}
	return f
}

func public(name string) bool { return strings.HasPrefix(name, "oss/") }

// recorded checks that each manifest of a public repository has one record for
// each of its layers, and that there is no other.
func (h *history) recorded(t *testing.T, f found) (records int) {
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
		t.Errorf("records of %s, which was never pushed", d)
	}
	return records
}

// layersOf lists the digests of the layers of an image; its first blob is its
// configuration.
func (h *history) layersOf(d string) (layers []string) {
	for i, b := range h.images[d].blobs {
		if i > 0 {
			layers = append(layers, digest.FromBytes(b).String())
		}
	}
	return layers
}

// announced checks that no image has two posts, that none of a private
// repository has one, and that each push has its post that was answered and
// that nothing could keep from it.
func (h *history) announced(t *testing.T, f found) (due int) {
	t.Helper()
	for image, n := range f.posts {
		if n > 1 {
			t.Errorf("%s has %d posts", image, n)
		}
		if !public(image) {
			t.Errorf("%s has a post and is private", image)
		}
	}
	for name, told := range h.repos {
		missing := map[string]bool{}
		for c := range told.confirmed {
			tag, d := c[0], c[1]
			if !public(name) || told.deleted[d] || told.untagged[tag] || len(told.tagged[tag]) > 1 || missing[d] || h.emptied(told, d) {
				continue
			}
			due++
			if f.posts[name+"@"+d] == 0 {
				missing[d] = true
				t.Errorf("%s:%s@%s, %s, has no post", name, tag, d, h.images[d].mediaType)
			}
		}
	}
	return due
}

// emptied reports whether an index may have had no image that is there when it was
// to be announced.
func (h *history) emptied(told *told, digest string) bool {
	m := h.images[digest]
	if m.mediaType != ociIndex {
		return false
	}
	var index struct{ Manifests []struct{ Digest string } }
	if err := json.Unmarshal(m.payload, &index); err != nil {
		h.t.Fatal(err)
	}
	for _, child := range index.Manifests {
		if !told.deleted[child.Digest] {
			return false
		}
	}
	return true
}

// counted checks that what was answered is counted, and no more than was asked.
func (h *history) counted(t *testing.T) {
	t.Helper()
	if h.redis != nil {
		h.sumsHold(t)
		return
	}
	for _, name := range h.names {
		told := h.repos[name]
		var n struct{ Counts map[string]int64 }
		if told.put+told.got == 0 {
			continue // it may not be known
		}
		h.json(t, "/tidings/api/v1/repositories/"+name, &n, h.token()...)
		pulls := n.Counts["pull"] + n.Counts["child"]
		within(t, name+" pulls", told.got, pulls, told.gets)
		within(t, name+" pushes", told.put, n.Counts["push"], told.puts)
		t.Logf("%s: pulls answered %d, counted %d, asked %d; pushes answered %d, counted %d, asked %d",
			name, told.got, pulls, told.gets, told.put, n.Counts["push"], told.puts)
	}
}

// judge checks everything that must be true of a registry that nobody asks for
// anything. It is stopped before and after.
func (h *history) judge(t *testing.T) {
	t.Helper()
	h.settle(t)
	h.agree(t)
	h.start()
	h.counted(t)
	f := h.look(t)
	records := h.recorded(t, f)
	due := h.announced(t, f)
	h.verified()
	h.drained()
	h.stop()
	h.ended()
	t.Logf("%d operations; %d images, %d records, %d posts of which %d were due", h.steps.Load(), len(h.order), records, len(f.posts), due)
	for _, p := range h.problems {
		t.Error(p)
	}
	h.problems = nil
}

// Killed at any moment of anything that clients do, over and over: each
// manifest in storage has its records, none that is gone has any, images are
// announced once, and everything that was answered is counted.
func TestKillRounds(t *testing.T) {
	t.Parallel()
	h := newHistory(t, newServer(t, settings{}))
	r := rand.New(rand.NewPCG(h.seed, 0))
	n := rounds(t, 5)
	for round := range n {
		if r.IntN(8) == 0 {
			h.diesEarly(time.Duration(r.IntN(700)) * time.Millisecond)
		}
		h.start()
		enough := make(chan struct{})
		go func() {
			until, end := h.steps.Load()+r.Int64N(150), time.Now().Add(2*time.Second)
			for h.steps.Load() < until && time.Now().Before(end) {
				pause()
			}
			time.Sleep(time.Duration(r.IntN(20_000)) * time.Microsecond)
			h.cmd.Process.Kill()
			close(enough)
		}()
		h.work(uint64(round), make(chan struct{}))
		<-enough
		h.dies()
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	h.judge(t)

	h.start()
	stop := make(chan struct{})
	until := h.steps.Load() + 400
	go func() {
		for end := time.Now().Add(time.Minute); h.steps.Load() < until && time.Now().Before(end); {
			pause()
		}
		close(stop)
	}()
	h.work(uint64(n), stop)
	h.drained()
	h.stop()
	h.ended()
	h.judge(t)
}

// diesEarly starts the registry and kills it after so long, whatever it is doing.
func (h *history) diesEarly(after time.Duration) {
	h.t.Helper()
	h.log = &logged{}
	h.cmd = h.command("serve", h.config)
	h.cmd.Stdout, h.cmd.Stderr = h.log, h.log
	if err := h.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	time.Sleep(after)
	h.dies()
}
