package notifier

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tidings-dev/tidings/notifier/describe"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/pushrow"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/stats"
)

// Limits of package describe.
const (
	describedManifests = 64
	describedBlobs     = 1024
	describedNested    = 4 // indexes in an index
)

// blob stores content and returns its descriptor.
func (s *memStorage) blob(mediaType, content string) map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blobs == nil {
		s.blobs = map[string][]byte{}
	}
	s.blobs[digest.FromString(content).String()] = []byte(content)
	return descriptor(mediaType, content, len(content))
}

// imageFor is an image with a platform in its config, and layers with the given contents.
// The content "config" stands for the config itself.
func (s *memStorage) imageFor(t testing.TB, platform string, layers ...string) Push {
	t.Helper()
	parts := append(strings.Split(platform, "/"), "")
	config := fmt.Sprintf(`{"os":%q,"architecture":%q,"variant":%q,"history":[]}`, parts[0], parts[1], parts[2])
	var list []map[string]any
	for _, content := range layers {
		if content == "config" {
			content = config
		}
		list = append(list, s.blob(v1.MediaTypeImageLayer, content))
	}
	return document(t, map[string]any{"mediaType": v1.MediaTypeImageManifest, "config": s.blob(v1.MediaTypeImageConfig, config), "layers": list})
}

// child is the descriptor of p in an index, with a platform or without.
func child(p Push, platform string) map[string]any {
	d := map[string]any{"mediaType": p.MediaType, "digest": p.Digest, "size": len(p.Payload)}
	if system, rest, ok := strings.Cut(platform, "/"); ok {
		architecture, variant, _ := strings.Cut(rest, "/")
		d["platform"] = map[string]any{"os": system, "architecture": architecture, "variant": variant}
	}
	return d
}

func indexOf(t testing.TB, children ...map[string]any) Push {
	t.Helper()
	return document(t, map[string]any{"mediaType": v1.MediaTypeImageIndex, "manifests": children})
}

// The size is that of the largest image in storage; a post has the sum of the images. An index without images is not
// announced.
func TestDescribe(t *testing.T) {
	t.Parallel()
	const config = 63 // bytes of the config of linux/amd64
	kB := func(content string, n int) string { return strings.Repeat(content, n*1000) }
	chart := func(s *memStorage) Push {
		return document(t, map[string]any{"mediaType": v1.MediaTypeImageManifest, "config": s.blob(event.MediaTypeChartConfig, "chart"), "layers": []map[string]any{s.blob("application/gzip", "chart layer")}})
	}
	amd, arm := "linux/amd64", "linux/arm64"
	for name, test := range map[string]struct {
		pushes func(s *memStorage) []Push // the last one is tagged
		size   int64
		layers int
		about  string // platforms
		post   string // second line of the post; "-": no post
	}{
		"an image": {func(s *memStorage) []Push {
			return []Push{s.imageFor(t, amd, kB("a", 5), kB("b", 6))}
		}, 11_000 + config, 2, amd, "11.1 kB, 2 layers, linux/amd64"},
		"a layer twice": {func(s *memStorage) []Push {
			return []Push{s.imageFor(t, amd, kB("a", 5), kB("a", 5))}
		}, 5000 + config, 2, amd, "5.1 kB, 2 layers, linux/amd64"},
		"the config is a layer": {func(s *memStorage) []Push {
			return []Push{s.imageFor(t, amd, "config")}
		}, config, 1, amd, "63 B, 1 layer, linux/amd64"},
		"a layer with a declared size of 1 PB": {func(s *memStorage) []Push {
			layer := s.blob(v1.MediaTypeImageLayer, strings.Repeat("x", 64))
			layer["size"] = int64(1_000_000_000_000_000)
			return []Push{document(t, map[string]any{"mediaType": v1.MediaTypeImageManifest, "config": s.blob(v1.MediaTypeImageConfig, "{}"), "layers": []map[string]any{layer}})}
		}, 66, 1, "", "66 B, 1 layer"},
		"sizes that overflow": {func(s *memStorage) []Push {
			one, two := s.blob(v1.MediaTypeImageLayer, "1"), s.blob(v1.MediaTypeImageLayer, "2")
			one["size"], two["size"] = int64(1)<<62, int64(1)<<62
			return []Push{document(t, map[string]any{"mediaType": v1.MediaTypeImageManifest, "config": s.blob(v1.MediaTypeImageConfig, "{}"), "layers": []map[string]any{one, two}})}
		}, 4, 2, "", "4 B, 2 layers"},
		"a layer that is stored elsewhere": {func(s *memStorage) []Push {
			foreign := descriptor(v1.MediaTypeImageLayer, "foreign", 1_000_000)
			foreign["urls"] = []string{"https://elsewhere.example"}
			return []Push{document(t, map[string]any{"mediaType": v1.MediaTypeImageManifest, "config": s.blob(v1.MediaTypeImageConfig, "{}"), "layers": []map[string]any{foreign, s.blob(v1.MediaTypeImageLayer, "here")}})}
		}, 6, 2, "", "6 B, 2 layers"},
		"a config with an unknown platform": {func(s *memStorage) []Push {
			return []Push{s.imageFor(t, "free/evil_coins", "x")}
		}, 68, 1, "", "68 B, 1 layer"},
		"an index": {func(s *memStorage) []Push {
			a, b := s.imageFor(t, amd, kB("s", 4), kB("a", 5)), s.imageFor(t, arm, kB("s", 4), kB("b", 7), "c")
			return []Push{a, b, indexOf(t, child(a, amd), child(b, arm))}
		}, 11_001 + config, 3, amd + " " + arm, "16.1 kB in 2 images, linux/amd64, linux/arm64"},
		"an index of one image and its attestation": {func(s *memStorage) []Push {
			a := s.imageFor(t, amd, kB("a", 5))
			attestation := document(t, map[string]any{
				"mediaType": v1.MediaTypeImageManifest, "config": s.blob(v1.MediaTypeImageConfig, "{}"),
				"layers": []map[string]any{s.blob("application/vnd.in-toto+json", kB("t", 90))},
			})
			return []Push{a, attestation, indexOf(t, child(a, amd), child(attestation, "unknown/unknown"), child(attestation, ""))}
		}, 5000 + config, 1, amd, "5.1 kB, 1 layer, linux/amd64"},
		"children without a platform": {func(s *memStorage) []Push {
			a, b := s.imageFor(t, amd, kB("a", 5)), s.imageFor(t, arm, kB("b", 9))
			return []Push{a, b, indexOf(t, child(a, amd), child(b, ""))}
		}, 9000 + config, 1, amd + " " + arm, "14.1 kB in 2 images, linux/amd64, linux/arm64"},
		"a nested index": {func(s *memStorage) []Push {
			a, b := s.imageFor(t, amd, kB("a", 5)), s.imageFor(t, arm, kB("b", 9))
			inner := indexOf(t, child(b, arm))
			return []Push{a, b, inner, indexOf(t, child(a, amd), child(inner, ""))}
		}, 9000 + config, 1, amd + " " + arm, "14.1 kB in 2 images, linux/amd64, linux/arm64"},
		"a missing child": {func(s *memStorage) []Push {
			a, gone := s.imageFor(t, amd, kB("a", 5)), image("gone", 1)
			return []Push{a, indexOf(t, child(a, amd), child(gone, arm))}
		}, 5000 + config, 1, amd, "5.1 kB, 1 layer, linux/amd64"},
		"a missing blob": {func(s *memStorage) []Push {
			a := s.imageFor(t, amd, kB("a", 5))
			info, err := event.ReadManifest(a.MediaType, a.Payload)
			if err != nil {
				t.Fatal(err)
			}
			s.lost = info.Layers[0].Digest
			return []Push{a}
		}, 0, 1, amd, "1 layer, linux/amd64"},
		"more images than are counted": {func(s *memStorage) []Push {
			var all []Push
			var list []map[string]any
			for i := range describedManifests + 1 {
				p := s.imageFor(t, amd, fmt.Sprint(i))
				all, list = append(all, p), append(list, child(p, amd))
			}
			return append(all, indexOf(t, list...))
		}, 0, 1, amd, "linux/amd64"},
		"nested too deep": {func(s *memStorage) []Push {
			all := []Push{s.imageFor(t, amd, "x")}
			for range describedNested + 2 {
				all = append(all, indexOf(t, child(all[len(all)-1], "")))
			}
			return all
		}, 0, 0, "", "-"},
		"an index of charts": {func(s *memStorage) []Push {
			c := chart(s)
			return []Push{c, indexOf(t, child(c, ""))}
		}, 0, 0, "", "-"},
		"an index of a chart and an image": {func(s *memStorage) []Push {
			c, a := chart(s), s.imageFor(t, amd, kB("a", 5))
			return []Push{c, a, indexOf(t, child(c, ""), child(a, ""))}
		}, 5000 + config, 1, amd, "5.1 kB, 1 layer, linux/amd64"},
		"an empty index": {func(s *memStorage) []Push { return []Push{indexOf(t)} }, 0, 0, "", "-"},
		"an index with an empty list": {func(s *memStorage) []Push {
			return []Push{document(t, map[string]any{"mediaType": v1.MediaTypeImageIndex, "manifests": []any{}})}
		}, 0, 0, "", "-"},
		"an index without a list": {func(s *memStorage) []Push {
			return []Push{document(t, map[string]any{"mediaType": v1.MediaTypeImageIndex})}
		}, 0, 0, "", "-"},
		"an index of itself": {func(s *memStorage) []Push {
			p := Push{Repository: "oss/app", Tag: "v1", Digest: digest.FromString("self").String(), MediaType: v1.MediaTypeImageIndex}
			p.Payload = fmt.Appendf(nil, `{"manifests":[{"digest":%q},{"digest":%q}]}`, p.Digest, p.Digest)
			return []Push{p}
		}, 0, 0, "", "-"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, shortWindows())
			all := test.pushes(r.storage)
			for _, p := range all[:len(all)-1] {
				r.push(p.as("oss/app", ""))
			}
			r.push(all[len(all)-1])
			r.drain()
			var got stats.Push
			r.until("the push is described", func() bool {
				row, err := r.undescribed() // read before the push
				if err != nil {
					t.Fatal(err)
				}
				pushes, err := r.Pushes(1, false)
				if err != nil {
					t.Fatal(err)
				}
				got = pushes[0]
				return row == nil && got.State == stateDone
			})
			if got.Size != test.size || got.Layers != test.layers || strings.Join(got.Platforms, " ") != test.about {
				t.Errorf("the API has %d bytes, %d layers, %q; want %d, %d, %q", got.Size, got.Layers, got.Platforms, test.size, test.layers, test.about)
			}
			posts := r.posts()
			if test.post == "-" {
				if len(posts) > 0 || got.Reason != "an index without an image" {
					t.Errorf("posts %v, reason %q", posts, got.Reason)
				}
				return
			}
			if len(posts) != 1 {
				t.Fatalf("%d posts: %+v", len(posts), got)
			}
			if lines, want := strings.Split(posts[0]["text"].(string), "\n"), "first version, "+test.post; lines[1] != want {
				t.Errorf("the post says %q, want %q", lines[1], want)
			}
		})
	}
}

// The number of requests to storage is limited, whatever an index lists.
func TestDescribeIsBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.stopSinks()
	var list []map[string]any
	var shared []string
	for i := range 300 {
		var layers []string
		for k := range 20 {
			layers = append(layers, fmt.Sprint(i, " ", k))
		}
		p := r.storage.imageFor(t, "linux/amd64", append(layers, shared...)...)
		r.storage.put(p)
		list = append(list, child(p, "linux/amd64"))
	}
	p := indexOf(t, list...)
	r.storage.put(p)
	r.storage.asked.Store(0)
	d, err := describe.Stored(t.Context(), r.Notifier.storage, p.Repository, p.Digest)
	if err != nil || d.Images == 0 || d.Size != 0 {
		t.Errorf("%+v, %v", d, err)
	}
	if asked := r.storage.asked.Load(); asked > describedManifests+describedBlobs {
		t.Errorf("%d requests to storage, want at most %d", asked, describedManifests+describedBlobs)
	}
}

// Rows of earlier versions are filtered, and rows are described after a restart and after
// storage was not available.
func TestDescribeRows(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	p := r.storage.imageFor(t, "linux/amd64", "layer")
	r.push(p)
	r.drain()
	r.stopSinks()
	batch := &state.Batch{}
	old := pushrow.Push{Seq: 2, Repository: p.Repository, Digest: image("gone", 1).Digest, Kind: "index", Platforms: []string{"linux/amd64", "linux/", "free/evil_coins", "linux/amd64"}}
	if err := pushrow.PutAll(batch, []pushrow.Push{old}); err != nil {
		t.Fatal(err)
	}
	if err := r.state.Commit(batch, state.NoSync); err != nil {
		t.Fatal(err)
	}
	if err := state.Delete(r.state, state.DescribeCursor, state.NoSync); err != nil {
		t.Fatal(err)
	}
	r.storage.fail(true)
	r.reopen(nil)
	if row, err := r.undescribed(); err != nil || row == nil {
		t.Errorf("%+v, %v", row, err)
	}
	r.storage.fail(false)
	r.until("all are described", func() bool { row, err := r.undescribed(); return row == nil && err == nil })
	pushes, err := r.Pushes(2, false)
	if err != nil || len(pushes) != 2 {
		t.Fatal(pushes, err)
	}
	if got := pushes[0].Platforms; !slices.Equal(got, []string{"linux/amd64"}) {
		t.Errorf("platforms of an earlier version: %q", got)
	}
	if got := pushes[1]; got.Size != 68 || !slices.Equal(got.Platforms, []string{"linux/amd64"}) {
		t.Errorf("%+v", got)
	}
}

// The sizes of shared layers are read from storage once.
func TestDescribeSharedLayers(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.stopSinks()
	const layers = 5
	p := image("shared", layers)
	r.push(p)
	asked := func() int64 {
		before := r.storage.asked.Load()
		if d, err := describe.Stored(t.Context(), r.Notifier.storage, p.Repository, p.Digest); err != nil || d.Size == 0 {
			t.Fatalf("got %+v, %v", d, err)
		}
		return r.storage.asked.Load() - before
	}
	first, second := asked(), asked()
	if first < layers || second > 2 { // the manifest and its config
		t.Errorf("storage was asked %d times, then %d times", first, second)
	}
}
