package notifier

import (
	"fmt"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Members that a manifest of its media type does not have, or that only describe
// it, may hold anything: the registry does not look at them.
func TestReadManifestLeniently(t *testing.T) {
	t.Parallel()
	const docker = "application/vnd.docker.distribution.manifest.v2+json"
	parts := `"config":{"digest":"sha256:1"},"layers":[{"digest":"sha256:2"}]`
	children := `"manifests":[{"digest":"sha256:3"}]`
	for _, odd := range []string{`5`, `"x"`, `[]`, `[5]`, `{}`, `null`, `{"digest":5}`, `[{"size":"x"}]`} {
		for _, name := range []string{"artifactType", "subject", "annotations"} {
			for _, mediaType := range []string{docker, v1.MediaTypeImageManifest, mediaTypeDockerList, v1.MediaTypeImageIndex} {
				body := fmt.Sprintf(`{%s,%q:%s}`, parts, name, odd)
				if isIndex(mediaType) {
					body = fmt.Sprintf(`{%s,%q:%s}`, children, name, odd)
				}
				info, err := readManifest(mediaType, []byte(body))
				if err != nil || len(info.Layers)+len(info.Manifests) != 1 {
					t.Errorf("%s %s: %+v, %v", mediaType, body, info, err)
				}
			}
		}
		if info, err := readManifest(docker, fmt.Appendf(nil, `{%s,"manifests":%s}`, parts, odd)); err != nil || len(info.Layers) != 1 || info.Config == nil {
			t.Errorf("manifests of an image are %s: %+v, %v", odd, info, err)
		}
		if info, err := readManifest(mediaTypeDockerList, fmt.Appendf(nil, `{%s,"config":%s,"layers":%s}`, children, odd, odd)); err != nil || len(info.Manifests) != 1 {
			t.Errorf("config and layers of a list are %s: %+v, %v", odd, info, err)
		}
	}
}

// A letter can be read although its event is nested as deep as JSON may be.
func TestDeepLetter(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for _, depth := range []int{9998, 9999, 10_000} {
		event := Event{Version: eventVersion, Time: r.Now()}
		payload := event.encodePushed([]byte(strings.Repeat("[", depth) + strings.Repeat("]", depth)))
		if err := r.DeadLetters.add("records", uint64(depth), uint64(depth), "a test", payload); err != nil {
			t.Fatal(err)
		}
	}
	if letters, err := r.DeadLetters.All(); err != nil || len(letters) != 3 {
		t.Errorf("%d letters, %v", len(letters), err)
	}
}
