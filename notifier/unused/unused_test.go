package unused

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tidings-dev/tidings/notifier/lastuse"
	"github.com/tidings-dev/tidings/notifier/stored"
)

var before = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

// registry is the storage of a registry, whose blobs have 1000 bytes each, and the last uses.
type registry struct {
	manifests map[string]map[string]string // repository, digest: payload
	tags      map[string]map[string]string
	uses      map[string]map[lastuse.Key]lastuse.Use
	since     time.Time
	missing   string
}

func newRegistry() *registry {
	return &registry{manifests: map[string]map[string]string{}, tags: map[string]map[string]string{}, uses: map[string]map[lastuse.Key]lastuse.Use{}}
}

const blobSize = 1000

func (r *registry) Manifest(_ context.Context, repository, digest string) (string, []byte, error) {
	payload, ok := r.manifests[repository][digest]
	if !ok {
		return "", nil, stored.ErrNotStored
	}
	mediaType := v1.MediaTypeImageManifest
	if strings.HasPrefix(payload, `{"manifests"`) {
		mediaType = v1.MediaTypeImageIndex
	}
	return mediaType, []byte(payload), nil
}

func (r *registry) StoredSize(context.Context, string) (int64, error) { return blobSize, nil }

func (r *registry) Tags(_ context.Context, repository string) ([]string, error) {
	return slices.Sorted(maps.Keys(r.tags[repository])), nil
}

func (r *registry) Tagged(_ context.Context, repository, tag string) (string, error) {
	digest, ok := r.tags[repository][tag]
	if !ok {
		return "", stored.ErrNotStored
	}
	return digest, nil
}

func (r *registry) Repositories(_ context.Context, visit func(string) error) error {
	for _, name := range slices.Sorted(maps.Keys(r.manifests)) {
		if err := visit(name); err != nil {
			return err
		}
	}
	return nil
}

func (r *registry) Manifests(_ context.Context, repository string, visit func(string) error) error {
	for _, digest := range slices.Sorted(maps.Keys(r.manifests[repository])) {
		if err := visit(digest); err != nil {
			return err
		}
	}
	return nil
}

// push stores a manifest, and returns its digest.
func (r *registry) push(repository, tag string, fields map[string]any) string {
	payload, _ := json.Marshal(fields)
	d := digest.FromBytes(payload).String()
	if r.manifests[repository] == nil {
		r.manifests[repository], r.tags[repository] = map[string]string{}, map[string]string{}
		r.uses[repository] = map[lastuse.Key]lastuse.Use{}
	}
	r.manifests[repository][d] = string(payload)
	if tag != "" {
		r.tags[repository][tag] = d
	}
	return d
}

func describe(digests ...string) (all []map[string]string) {
	for _, d := range digests {
		all = append(all, map[string]string{"digest": d})
	}
	return all
}

// image pushes an image with a config of its own and the named layers.
func (r *registry) image(tag, name string, layers ...string) string {
	for i := range layers {
		layers[i] = digest.FromString(layers[i]).String()
	}
	return r.push("app", tag, map[string]any{"config": describe(digest.FromString("config of " + name).String())[0], "layers": describe(layers...)})
}

// use uses a tag or a digest, within the period.
func (r *registry) use(names ...string) {
	for _, name := range names {
		k := lastuse.OfTag(name)
		if strings.Contains(name, ":") {
			k = lastuse.OfDigest(name)
		}
		r.uses["app"][k] = lastuse.Use{Used: before.Unix() / 3600}
	}
}

// pushed sets the push of a tag, a number of hours before the period.
func (r *registry) pushed(tag string, hours int64) {
	r.uses["app"][lastuse.OfTag(tag)] = lastuse.Use{Pushed: before.Unix()/3600 - hours}
}

// search returns a search of what was not used since before.
func (r *registry) search(o Options) *Search {
	o.Before = before
	return &Search{Storage: r, Options: o, Uses: func(_ context.Context, repository string, after time.Time) (Uses, error) {
		rows := maps.Clone(r.uses[repository])
		maps.DeleteFunc(rows, func(_ lastuse.Key, u lastuse.Use) bool { return u.Last().Before(after) })
		return Uses{Known: lastuse.Known{Since: r.since, Missing: r.missing}, Rows: rows}, nil
	}}
}

func TestSearch(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		build   func(r *registry) (untagged map[string]string) // names of digests
		options Options
		want    string
		blobs   int64 // freed
	}{
		"nothing was used": {func(r *registry) map[string]string {
			r.image("v1", "a", "base", "a")
			return nil
		}, Options{}, "v1", 4},
		"shared layers and configs stay": {func(r *registry) map[string]string {
			r.image("v1", "a", "base", "a")
			r.use("v2", r.image("v2", "b", "base", "b"))
			return nil
		}, Options{}, "v1", 3},
		"a layer in another repository stays": {func(r *registry) map[string]string {
			r.image("v1", "a", "a")
			r.push("other", "v1", map[string]any{"layers": describe(digest.FromString("a").String())})
			return nil
		}, Options{Repository: func(name string) bool { return name == "app" }}, "v1", 2},
		"two tags of one digest": {func(r *registry) map[string]string {
			r.use("latest", r.image("latest", "a", "a"))
			r.image("v1", "a", "a")
			return nil
		}, Options{}, "v1", 0},
		"used by digest": {func(r *registry) map[string]string {
			r.use(r.image("v1", "a", "a"))
			return nil
		}, Options{}, "", 0},
		"children of a kept index": {func(r *registry) map[string]string {
			child := r.image("", "a", "a")
			r.push("app", "v1", map[string]any{"manifests": describe(child)})
			r.use("v1")
			return nil
		}, Options{}, "", 0},
		"children of an unused index": {func(r *registry) map[string]string {
			child, shared := r.image("", "a", "a"), r.image("", "b", "b")
			r.push("app", "v1", map[string]any{"manifests": describe(child, shared)})
			r.push("app", "v2", map[string]any{"manifests": describe(shared)})
			r.use("v2")
			return map[string]string{child: "child", shared: "shared"}
		}, Options{}, "child v1", 4},
		"a child that was used by digest": {func(r *registry) map[string]string {
			child := r.image("", "a", "a")
			r.push("app", "v1", map[string]any{"manifests": describe(child)})
			r.use(child)
			return nil
		}, Options{}, "", 0},
		"untagged": {func(r *registry) map[string]string {
			r.use(r.image("", "a", "a"))
			return map[string]string{r.image("", "b", "b"): "b"}
		}, Options{}, "b", 3},
		"referrers of a kept image": {func(r *registry) map[string]string {
			image := r.image("v1", "a", "a")
			r.use("v1")
			signature := r.push("app", "", map[string]any{"subject": describe(image)[0]})
			r.push("app", "", map[string]any{"subject": describe(signature)[0]})
			prefix := strings.Replace(image, ":", "-", 1)
			for _, suffix := range []string{"", ".sig", ".att", ".sbom"} {
				r.image(prefix+suffix, suffix, suffix)
			}
			return nil
		}, Options{}, "", 0},
		"referrers of an unused image": {func(r *registry) map[string]string {
			image := r.image("v1", "a", "a")
			signature := r.push("app", "", map[string]any{"subject": describe(image)[0]})
			tag := strings.Replace(image, ":", "-", 1) + ".sig"
			r.image(tag, "sig", "sig")
			return map[string]string{signature: "signature", tag: "cosign"}
		}, Options{}, "cosign signature v1", 7},
		"kept by name": {func(r *registry) map[string]string {
			r.image("v1", "a", "a")
			r.image("stable", "b", "b")
			return nil
		}, Options{KeepTag: func(tag string) bool { return tag == "stable" }}, "v1", 3},
		"kept as newest": {func(r *registry) map[string]string {
			for i := range 4 {
				r.image(fmt.Sprint("v", i), fmt.Sprint(i), fmt.Sprint(i))
				r.pushed(fmt.Sprint("v", i), int64(100-i))
			}
			return nil
		}, Options{Keep: 2}, "v0 v1", 6},
		"pushes that are not known": {func(r *registry) map[string]string {
			for i := range 3 {
				r.image(fmt.Sprint("v", i), fmt.Sprint(i), fmt.Sprint(i))
			}
			r.pushed("v2", 1)
			return nil
		}, Options{Keep: 2}, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRegistry()
			names := test.build(r)
			s := r.search(test.options)
			result, err := s.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, item := range result.Items {
				got = append(got, nameOf(item, names))
			}
			slices.Sort(got)
			if strings.Join(got, " ") != test.want || result.Bytes != test.blobs*blobSize {
				t.Errorf("unused %q, %d bytes; want %q, %d", got, result.Bytes, test.want, test.blobs*blobSize)
			}
		})
	}
}

func nameOf(item Item, names map[string]string) string {
	name := item.Tag
	if name == "" {
		name = item.Digest
	}
	if short := names[name]; short != "" {
		return short
	}
	return name
}

// A manifest that can't be read may list others, so nothing is reported. A subject that is
// none, which the registry does not parse, is no reason.
func TestDamagedManifest(t *testing.T) {
	t.Parallel()
	for payload, damaged := range map[string]bool{"{": true, `{"layers":[{}],"subject":7}`: false, `{"subject":{"digest":7}}`: false} {
		r := newRegistry()
		r.manifests["app"] = map[string]string{"sha256:00": payload}
		if result, err := r.search(Options{}).Run(t.Context()); (err != nil) != damaged {
			t.Errorf("%s: the result is %+v, %v", payload, result, err)
		}
	}
}

// A child that the index lists and the repository does not have stays with the index, as
// garbage-collect keeps it.
func TestSparseIndex(t *testing.T) {
	t.Parallel()
	r := newRegistry()
	child := r.push("other", "v1", map[string]any{"layers": describe(digest.FromString("a").String())})
	r.push("app", "v1", map[string]any{"manifests": describe(child)})
	r.use("v1")
	result, err := r.search(Options{}).Run(t.Context())
	if err != nil || len(result.Items) != 1 || result.Bytes != blobSize { // the layer
		t.Errorf("the result is %+v, %v; want one tag and %d bytes", result, err, blobSize)
	}
}
