package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	testrounds "github.com/tidings-dev/tidings/internal/rounds"
	"github.com/tidings-dev/tidings/notifier/unused"
)

// usesModel has the contents of a registry, and the day of the last use of everything.
type usesModel struct {
	repositories map[string]*modelRepository
	stored       map[string]int64 // sizes of all blobs and manifests that were uploaded, by digest
	day          int
}

type modelRepository struct {
	tags      map[string]string // digests
	manifests map[string]*modelManifest
	last      map[string]int // of tags and digests: the day of the last push or use
	pushed    map[string]int // of tags
}

type modelManifest struct {
	image
	children []string
	subject  string
}

func (r *modelRepository) use(day int, names ...string) {
	for _, name := range names {
		r.last[name] = day
	}
}

// kept are the tags and manifests that docs/unused.md says are kept, and the manifests to
// which a kept tag leads.
type kept struct{ tags, manifests, tagged map[string]bool }

// close adds to k what is kept because of what is in it already.
func (r *modelRepository) close(k kept) {
	for before := -1; before != len(k.tags)+len(k.manifests)+len(k.tagged); {
		before = len(k.tags) + len(k.manifests) + len(k.tagged)
		for tag := range k.tags {
			k.manifests[r.tags[tag]], k.tagged[r.tags[tag]] = true, true
		}
		for name := range k.manifests {
			for other, m := range r.manifests {
				if slices.Contains(r.manifests[name].children, other) || m.subject == name {
					k.manifests[other] = true
					k.tagged[other] = k.tagged[other] || k.tagged[name]
				}
			}
			for tag := range r.tags {
				if strings.HasPrefix(tag, strings.Replace(name, ":", "-", 1)) {
					k.tags[tag] = true
				}
			}
		}
		maps.DeleteFunc(k.tagged, func(_ string, tagged bool) bool { return !tagged })
	}
}

// leads reports whether a manifest or a child of it is kept without a kept tag.
func (r *modelRepository) leads(name string, k kept) bool {
	m := r.manifests[name]
	return m != nil && (k.manifests[name] && !k.tagged[name] || slices.ContainsFunc(m.children, func(child string) bool { return r.leads(child, k) }))
}

// unused returns what is unused since a day, as "tag digest manifest" without the repository.
func (r *modelRepository) unused(since, keep int, keepTag string) (found []string) {
	k := kept{map[string]bool{}, map[string]bool{}, map[string]bool{}}
	var pushes []int
	for tag := range r.tags {
		if !strings.HasPrefix(tag, "sha256-") {
			pushes = append(pushes, r.pushed[tag])
		}
	}
	slices.Sort(pushes)
	for tag := range r.tags {
		newest := keep > 0 && !strings.HasPrefix(tag, "sha256-") && r.pushed[tag] >= pushes[max(len(pushes)-keep, 0)]
		if r.last[tag] >= since || tag == keepTag || newest {
			k.tags[tag] = true
		}
	}
	for name := range r.manifests {
		if r.last[name] >= since {
			k.manifests[name] = true
		}
	}
	r.close(k)
	var leading []string
	for tag, name := range r.tags {
		if r.leads(name, k) {
			leading = append(leading, tag)
		}
	}
	for _, tag := range leading {
		k.tags[tag] = true
	}
	r.close(k)
	tagged := map[string]bool{}
	for tag, name := range r.tags {
		tagged[name] = true
		if !k.tags[tag] {
			found = append(found, fmt.Sprint(tag, " ", name, " ", !k.manifests[name]))
		}
	}
	for name := range r.manifests {
		if !k.manifests[name] && !tagged[name] {
			found = append(found, fmt.Sprint("", " ", name, " ", true))
		}
	}
	slices.Sort(found)
	return found
}

// garbage is the size of what no manifest has.
func (m *usesModel) garbage() (total int64) {
	left := maps.Clone(m.stored)
	for _, r := range m.repositories {
		for name, manifest := range r.manifests {
			delete(left, name)
			for _, b := range manifest.blobs {
				delete(left, digest.FromBytes(b).String())
			}
			for _, child := range manifest.children { // garbage-collect keeps those that were deleted
				delete(left, child)
			}
		}
	}
	for _, size := range left {
		total += size
	}
	return total
}

// randomHistory plays random requests against a registry and its model.
type randomHistory struct {
	*history
	usesModel
	random *rand.Rand
	number int // of manifests and requests
}

// some returns a random element.
func some[E any](h *randomHistory, all []E) E { return all[h.random.IntN(len(all))] }

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// write pushes a manifest.
func (h *randomHistory) write(repository, tag string, m modelManifest) {
	r := h.repositories[repository]
	reference := tag
	if tag == "" {
		reference = m.digest
	}
	h.push(h.t, repository, reference, m.image)
	for _, b := range append(m.blobs, m.payload) {
		h.stored[digest.FromBytes(b).String()] = int64(len(b))
	}
	r.manifests[m.digest] = &m
	r.use(h.day, m.digest)
	if tag != "" {
		r.tags[tag] = m.digest
		r.use(h.day, tag)
		r.pushed[tag] = h.day
	}
}

// newManifest returns an image with shared layers and one of its own. It has a subject, which may be
// deleted, unless that is nil.
func (h *randomHistory) newManifest(subject *image) modelManifest {
	h.number++
	name := fmt.Sprint("m", h.number)
	m := modelManifest{image: h.built(name, subject, "shared "+fmt.Sprint(h.random.IntN(4)), name)}
	if subject != nil {
		m.subject = subject.digest
	}
	return m
}

// read pulls a manifest, or asks for it.
func (h *randomHistory) read(method, repository, reference, agent string) {
	h.t.Helper()
	h.number++
	res, _, err := h.do(method, "/v2/"+repository+"/manifests/"+reference, "", nil, "Accept", acceptAll, "User-Agent", fmt.Sprint(agent, h.number))
	if err != nil || res.StatusCode != http.StatusOK {
		h.t.Fatalf("%s %s %s: %v, %v", method, repository, reference, res, err)
	}
}

// step sends a random request.
func (h *randomHistory) step() {
	repository := some(h, []string{"oss/app", "oss/app", "oss/app", "other/app"})
	r := h.repositories[repository]
	all, tags := sorted(r.manifests), sorted(r.tags)
	tag := some(h, []string{"", "v1", "v2", "v3", "v4", "v5", "latest", "stable"})
	n := h.random.IntN(100)
	if len(tags) == 0 {
		n = 0
		tag = "v1"
	}
	switch {
	case n < 18:
		h.write(repository, tag, h.newManifest(nil))
	case n < 26: // a retag, or a push of the same again, which needs the children
		m := r.manifests[some(h, all)]
		if !slices.ContainsFunc(m.children, func(child string) bool { return r.manifests[child] == nil }) {
			h.write(repository, tag, *m)
		}
	case n < 36: // an index
		children := []string{some(h, all), some(h, all)}
		h.number++
		list := []any{}
		for _, child := range children {
			list = append(list, map[string]any{"mediaType": r.manifests[child].mediaType, "digest": child, "size": len(r.manifests[child].payload)})
		}
		m := h.finish(image{mediaType: ociIndex}, "index", map[string]any{"schemaVersion": 2, "mediaType": ociIndex, "manifests": list,
			"annotations": map[string]any{"x": fmt.Sprint(h.number)}})
		h.write(repository, tag, modelManifest{image: m, children: children})
	case n < 44: // a signature or attestation that names its subject
		h.write(repository, "", h.newManifest(&r.manifests[some(h, all)].image))
	case n < 52: // or that has a tag of the referrers tag schema
		h.write(repository, strings.Replace(some(h, all), ":", "-", 1)+some(h, []string{"", ".sig", ".att"}), h.newManifest(nil))
	case n < 68:
		tag := some(h, tags)
		h.read(some(h, []string{"GET", "HEAD"}), repository, tag, "puller")
		r.use(h.day, tag, r.tags[tag])
	case n < 82:
		name := some(h, all)
		h.read(some(h, []string{"GET", "HEAD"}), repository, name, "puller")
		r.use(h.day, name)
	case n < 88:
		h.read("GET", repository, some(h, append(all, tags...)), "scanner")
	case n < 94:
		tag := some(h, tags)
		h.remove(repository, tag)
		delete(r.tags, tag)
	default:
		name := some(h, all)
		h.remove(repository, name)
		delete(r.manifests, name)
		maps.DeleteFunc(r.tags, func(_, tagged string) bool { return tagged == name })
	}
}

func (h *randomHistory) remove(repository, reference string) {
	h.t.Helper()
	if res, _, err := h.do("DELETE", "/v2/"+repository+"/manifests/"+reference, "", nil); err != nil || res.StatusCode != http.StatusAccepted {
		h.t.Fatalf("delete %s: %v, %v", reference, res, err)
	}
}

// A random history of pushes, pulls, HEAD requests, retags and deletes of images, indexes,
// signatures and attestations: the list is that of a model. After --delete and
// garbage-collect the rest can be pulled, and the storage is smaller by what was announced.
func TestUnusedRandomHistory(t *testing.T) {
	t.Parallel()
	seed := testrounds.Seed(t)
	s := newServer(t, settings{options: `count: {ignore_user_agents: ["scanner*"]}`})
	h := &randomHistory{
		history:   &history{s, map[string]string{}},
		usesModel: usesModel{repositories: map[string]*modelRepository{}, stored: map[string]int64{}},
		random:    rand.New(rand.NewPCG(seed, 0)),
	}
	for _, name := range []string{"oss/app", "other/app"} {
		h.repositories[name] = &modelRepository{map[string]string{}, map[string]*modelManifest{}, map[string]int{}, map[string]int{}}
	}
	half := time.Now().Truncate(time.Hour).Add(30 * time.Minute) // pushes of a day are of one hour
	on := func(day int) {
		h.day = day
		h.setClock(time.Until(half) + time.Duration(day)*24*time.Hour)
	}
	on(0)
	h.start()
	for _, day := range []int{1, 30, 60, 80, 120} {
		on(day)
		for range 14 {
			h.step()
		}
	}
	on(165) // 75 days are before the period
	keep := h.random.IntN(3)
	list := []string{"unused", h.config, "--for", "90d", "--keep-tags", "stable", "--keep", fmt.Sprint(keep), "--json"}
	searched := []string{"oss/app", "other/app"}
	if h.random.IntN(2) == 0 {
		list, searched = append(list, "--repository", "oss/*"), searched[:1]
	}
	var want []string
	for _, name := range searched {
		for _, line := range h.repositories[name].unused(75, keep, "stable") {
			want = append(want, name+" "+line)
		}
	}
	find := func() (got []string, bytes int64) {
		out, code := h.run(list...)
		var result unused.Result
		if err := json.Unmarshal([]byte(out), &result); code != 0 || err != nil {
			t.Fatalf("exit code %d, %v\n%s", code, err, out)
		}
		for _, i := range result.Items {
			got = append(got, fmt.Sprint(i.Repository, " ", i.Tag, " ", i.Digest, " ", i.Manifest))
		}
		slices.Sort(got)
		return got, result.Bytes
	}
	got, announced := find()
	if !slices.Equal(got, want) {
		t.Fatalf("unused are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if out, code := h.run(append(list, "--delete", "--yes")...); code != 0 {
		t.Fatalf("exit code %d\n%s", code, out)
	}
	garbage := h.garbage()
	for _, line := range want {
		at := strings.Split(line, " ")
		r := h.repositories[at[0]]
		delete(r.tags, at[1])
		if at[3] == "true" {
			delete(r.manifests, at[2])
		}
	}
	if left, _ := find(); len(left) > 0 {
		t.Errorf("unused after the deletion are\n%s", strings.Join(left, "\n"))
	}
	h.stop()
	before := h.blobBytes()
	if out, err := h.collect(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if freed := before - h.blobBytes(); freed != announced+garbage {
		t.Errorf("%d bytes were freed, want %d announced and %d left by earlier deletes", freed, announced, garbage)
	}
	h.start()
	for name, r := range h.repositories {
		for _, reference := range append(sorted(r.tags), sorted(r.manifests)...) {
			h.read("GET", name, reference, "puller")
		}
	}
}
