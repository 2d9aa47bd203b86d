package main

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/redis/go-redis/v9"

	testrounds "github.com/tidings-dev/tidings/internal/rounds"
)

// A workload sends random requests to a registry and keeps the requests and the
// responses, with which the final contents of the registry are compared. It is safe
// for concurrent use.
type workload struct {
	*server
	seed uint64

	mu     sync.Mutex
	images map[string]image // by digest
	order  []string         // digests, in order of creation
	repos  map[string]*repoLog
	names  []string
	tags   atomic.Int64 // numbers the tags
	steps  atomic.Int64 // answered operations
	pulls  atomic.Int64 // that may still be sent

	redis redis.UniversalClient // sums the counters; nil: none

	expected []string // substrings of warnings that may be logged
	problems []string // unexpected responses and log lines
}

// repoLog has the requests for one repository, and their responses.
type repoLog struct {
	asked     map[string]bool            // digests for which a PUT was sent
	has       map[string]bool            // digests whose blobs are stored
	deleted   map[string]bool            // digests for which a DELETE was sent
	tagged    map[string]map[string]bool // digests for which a PUT was sent, by tag
	untagged  map[string]bool            // tags for which a DELETE was sent
	confirmed map[[2]string]bool         // tag and digest of PUTs answered 201
	known     []string                   // digests, in order of their first PUT
	names     []string                   // tags

	gets, got, puts, put int64 // GETs sent and answered 200, PUTs sent and answered 201
}

// newWorkload is called before the registry is started.
func newWorkload(t *testing.T, s *server) *workload {
	h := &workload{server: s, seed: testrounds.Seed(t), images: map[string]image{}, repos: map[string]*repoLog{}}
	for _, name := range []string{"oss/a", "oss/b", "oss/deep/c", "private/a", "private/b"} {
		h.addRepository(name)
	}
	s.edit("level: error", "level: warn")
	h.pulls.Store(math.MaxInt64)
	h.expected = slices.Clone(expectedWarnings)
	return h
}

func (h *workload) addRepository(name string) {
	h.names = append(h.names, name)
	h.repos[name] = &repoLog{
		asked: map[string]bool{}, has: map[string]bool{}, deleted: map[string]bool{}, tagged: map[string]map[string]bool{},
		untagged: map[string]bool{}, confirmed: map[[2]string]bool{},
	}
}

const workers = 8

// work runs all workers until stop is closed or the registry does not respond.
// A round determines their random numbers.
func (h *workload) work(round uint64, stop <-chan struct{}) {
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

// step does one operation and reports whether the registry responded.
func (h *workload) step(r *rand.Rand) bool {
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

func (h *workload) newTag() string { return fmt.Sprint("v", h.tags.Add(1)) }

func (h *workload) newImage(r *rand.Rand) image {
	m := newImage(1 + r.IntN(3))
	h.mu.Lock()
	defer h.mu.Unlock()
	h.keep(m)
	return m
}

func (h *workload) keep(m image) {
	h.images[m.digest] = m
	h.order = append(h.order, m.digest)
}

// some returns an image that was pushed to the repository, preferably a recent one.
func (h *workload) some(r *rand.Rand, name string) image {
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

// recent returns an element, with a probability of two thirds one of the last ten.
func recent(r *rand.Rand, list []string) string {
	if len(list) == 0 {
		return ""
	}
	if r.IntN(3) > 0 {
		list = list[max(0, len(list)-10):]
	}
	return list[r.IntN(len(list))]
}

func (h *workload) someTag(r *rand.Rand, name string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r.IntN(4) == 0 || len(h.repos[name].names) == 0 {
		return "latest"
	}
	return recent(r, h.repos[name].names)
}

func (h *workload) someDeleted(r *rand.Rand, name string) image {
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

// push uploads the blobs if they are missing, and puts the manifest. It reports
// whether the registry responded.
func (h *workload) push(name, reference string, m image) bool {
	h.mu.Lock()
	has := h.repos[name].has[m.digest]
	h.mu.Unlock()
	if !has {
		if err := h.upload(name, m); err != nil {
			return h.responds()
		}
	}
	h.willPut(name, reference, m.digest)
	status, err := h.client.put(name, reference, m)
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.repos[name]
	if status != 201 {
		if status == http.StatusServiceUnavailable { // a 500 comes from distribution, whose tags are not safe for concurrent use
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

// willPut records a PUT before it is sent.
func (h *workload) willPut(name, reference, digest string) {
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

func (h *workload) responds() bool {
	res, _, err := h.do("GET", "/v2/", "", nil)
	return err == nil && res.StatusCode == 200
}

// pushIndex pushes two images by digest, and their index with a tag.
func (h *workload) pushIndex(r *rand.Rand, name string) bool {
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

func (h *workload) delete(name, digest string) bool {
	h.mu.Lock()
	h.repos[name].deleted[digest] = true
	h.mu.Unlock()
	return h.remove(name, digest)
}

func (h *workload) untag(name, tag string) bool {
	h.mu.Lock()
	h.repos[name].untagged[tag] = true
	h.mu.Unlock()
	return h.remove(name, tag)
}

func (h *workload) remove(name, reference string) bool {
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

func (h *workload) pull(name, reference string) bool {
	if h.pulls.Add(-1) < 0 {
		return true
	}
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
