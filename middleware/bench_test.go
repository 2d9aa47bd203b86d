package middleware

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/manifest/ocischema"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tidings-dev/tidings/notifier"
)

type deaf struct{}

func (deaf) Intend(context.Context, notifier.Push) (Intent, error) { return deaf{}, nil }
func (deaf) Pull(notifier.Pull)                                    {}
func (deaf) Complete(context.Context) error                        { return nil }
func (deaf) Abandon()                                              {}
func (deaf) Release()                                              {}

func (deaf) IntendDelete(context.Context, notifier.Delete) (Intent, error) { return deaf{}, nil }

type oneManifest struct {
	distribution.ManifestService
	manifest distribution.Manifest
}

func (o oneManifest) Get(context.Context, digest.Digest, ...distribution.ManifestServiceOption) (distribution.Manifest, error) {
	return o.manifest, nil
}

// What hearing a pull of a ten-layer image costs on its way, without the
// recorder.
func BenchmarkPull(b *testing.B) {
	layers := strings.TrimSuffix(strings.Repeat(fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":1},`, v1.MediaTypeImageLayerGzip, digest.FromString("x")), 10), ",")
	manifest := &ocischema.DeserializedManifest{}
	if err := manifest.UnmarshalJSON(fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{},"layers":[%s]}`, v1.MediaTypeImageManifest, layers)); err != nil {
		b.Fatal(err)
	}
	h, err := start(&configuration.Configuration{}, parts{recorder: deaf{}})
	if err != nil {
		b.Fatal(err)
	}
	defer h.Close(context.Background())
	dgst := digest.FromString("manifest")
	heard := h.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m := &manifests{ManifestService: oneManifest{manifest: manifest}, name: "oss/app", handler: h}
		if _, err := m.Get(r.Context(), dgst, distribution.WithTag("v1")); err != nil {
			b.Error(err)
		}
		w.WriteHeader(http.StatusOK)
	}))
	request := httptest.NewRequest("GET", "/v2/oss/app/manifests/v1", nil)
	b.ReportAllocs()
	for b.Loop() {
		heard.ServeHTTP(silent{}, request)
	}
}

type silent struct{}

func (silent) Header() http.Header         { return nil }
func (silent) Write(p []byte) (int, error) { return len(p), nil }
func (silent) WriteHeader(int)             {}
