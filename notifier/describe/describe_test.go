package describe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tidings-dev/tidings/notifier/stored"
)

// storage has manifests by digest, and one config for all of them.
type storage struct {
	stored.Reader
	manifests map[string]string
	config    func(ctx context.Context, limit int64) ([]byte, error)
}

func (s storage) Manifest(_ context.Context, _, digest string) (string, []byte, error) {
	payload, ok := s.manifests[digest]
	if !ok {
		return "", nil, stored.ErrNotStored
	}
	mediaType := v1.MediaTypeImageManifest
	if strings.Contains(payload, `"manifests"`) {
		mediaType = v1.MediaTypeImageIndex
	}
	return mediaType, []byte(payload), nil
}

func (s storage) BlobSize(context.Context, string, string) (int64, error) { return 500, nil }

func (s storage) Has(context.Context, string, string) (bool, error) { return true, nil }

func (s storage) Blob(ctx context.Context, _, _ string, limit int64) ([]byte, error) {
	return s.config(ctx, limit)
}

// add stores a manifest.
func (s storage) add(payload string) (dgst string) {
	dgst = digest.FromString(payload).String()
	s.manifests[dgst] = payload
	return dgst
}

// image stores an image whose config is the n-th.
func (s storage) image(n int) string {
	return s.add(fmt.Sprintf(`{"config":{"mediaType":%q,"digest":%q},"layers":[]}`, v1.MediaTypeImageConfig, digest.FromString(fmt.Sprint(n))))
}

// The platform is optional: whatever goes wrong with the config, an image is described
// without it, within the limit.
func TestPlatformIsOptional(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		config func(ctx context.Context, limit int64) ([]byte, error)
		want   string
	}{
		"read": {func(context.Context, int64) ([]byte, error) {
			return []byte(`{"os":"linux","architecture":"arm","variant":"v7"}`), nil
		}, "[linux/arm/v7]"},
		"fails":       {func(context.Context, int64) ([]byte, error) { return nil, errors.New("storage is down") }, "[]"},
		"not stored":  {func(context.Context, int64) ([]byte, error) { return nil, stored.ErrNotStored }, "[]"},
		"no JSON":     {func(context.Context, int64) ([]byte, error) { return []byte("<html>"), nil }, "[]"},
		"other JSON":  {func(context.Context, int64) ([]byte, error) { return []byte(`{"os":["linux"]}`), nil }, "[]"},
		"no platform": {func(context.Context, int64) ([]byte, error) { return []byte(`{"os":"evil","architecture":"x"}`), nil }, "[]"},
		"never answers": {func(ctx context.Context, _ int64) ([]byte, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, "[]"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := storage{manifests: map[string]string{}, config: func(ctx context.Context, limit int64) ([]byte, error) {
					if limit != maxConfig {
						t.Errorf("got the limit %d, want %d", limit, maxConfig)
					}
					return test.config(ctx, limit)
				}}
				var children []string
				for n := range 10 {
					children = append(children, fmt.Sprintf(`{"mediaType":%q,"digest":%q}`, v1.MediaTypeImageManifest, s.image(n)))
				}
				index := s.add(`{"manifests":[` + strings.Join(children, ",") + `]}`)
				start := time.Now()
				d, err := Stored(t.Context(), stored.NewChecked(s, slog.New(slog.DiscardHandler)), "oss/app", index)
				if err != nil || d.Images != 10 || d.Size != 500 || fmt.Sprint(d.Platforms) != test.want {
					t.Errorf("got %+v, %v; want the platforms %s", d, err, test.want)
				}
				if took := time.Since(start); took > maxConfigs {
					t.Errorf("took %s, want at most %s", took, maxConfigs)
				}
			})
		})
	}
}
