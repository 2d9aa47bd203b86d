package observe

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/manifest/ocischema"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tidings-dev/tidings/notifier"
)

// noRecorder records nothing.
type noRecorder struct{ Recorder }

func (noRecorder) Pull(notifier.Pull) {}

// oneManifest returns the same manifest for every digest.
type oneManifest struct {
	distribution.ManifestService
	manifest distribution.Manifest
}

func (o oneManifest) Get(context.Context, digest.Digest, ...distribution.ManifestServiceOption) (distribution.Manifest, error) {
	return o.manifest, nil
}

// BenchmarkPull measures the cost of observing the pull of an image with ten
// layers, without the cost of the recorder.
func BenchmarkPull(b *testing.B) {
	layers := strings.TrimSuffix(strings.Repeat(fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":1},`, v1.MediaTypeImageLayerGzip, digest.FromString("x")), 10), ",")
	manifest := &ocischema.DeserializedManifest{}
	if err := manifest.UnmarshalJSON(fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{},"layers":[%s]}`, v1.MediaTypeImageManifest, layers)); err != nil {
		b.Fatal(err)
	}
	observer := New(Config{Recorder: noRecorder{}})
	dgst := digest.FromString("manifest")
	observed := observer.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m := &manifests{ManifestService: oneManifest{manifest: manifest}, name: "oss/app", observer: observer}
		if _, err := m.Get(r.Context(), dgst, distribution.WithTag("v1")); err != nil {
			b.Error(err)
		}
		w.WriteHeader(http.StatusOK)
	}))
	request := httptest.NewRequest("GET", "/v2/oss/app/manifests/v1", nil)
	b.ReportAllocs()
	for b.Loop() {
		observed.ServeHTTP(discard{}, request)
	}
}

// discard is a ResponseWriter that discards everything.
type discard struct{}

func (discard) Header() http.Header         { return nil }
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)             {}
