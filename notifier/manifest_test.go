package notifier

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/journal"
)

// Members that the registry does not parse may have any JSON.
func TestReadManifestUnparsedMembers(t *testing.T) {
	t.Parallel()
	const docker = "application/vnd.docker.distribution.manifest.v2+json"
	parts := `"config":{"digest":"sha256:1"},"layers":[{"digest":"sha256:2"}]`
	children := `"manifests":[{"digest":"sha256:3"}]`
	for _, odd := range []string{`5`, `"x"`, `[]`, `[5]`, `{}`, `null`, `{"digest":5}`, `[{"size":"x"}]`} {
		for _, name := range []string{"artifactType", "subject", "annotations"} {
			for _, mediaType := range []string{docker, v1.MediaTypeImageManifest, event.MediaTypeDockerList, v1.MediaTypeImageIndex} {
				body := fmt.Sprintf(`{%s,%q:%s}`, parts, name, odd)
				if event.IsIndex(mediaType) {
					body = fmt.Sprintf(`{%s,%q:%s}`, children, name, odd)
				}
				info, err := event.ReadManifest(mediaType, []byte(body))
				if err != nil || len(info.Layers)+len(info.Manifests) != 1 {
					t.Errorf("%s %s: %+v, %v", mediaType, body, info, err)
				}
			}
		}
		if info, err := event.ReadManifest(docker, fmt.Appendf(nil, `{%s,"manifests":%s}`, parts, odd)); err != nil || len(info.Layers) != 1 || info.Config == nil {
			t.Errorf("manifests of an image are %s: %+v, %v", odd, info, err)
		}
		if info, err := event.ReadManifest(event.MediaTypeDockerList, fmt.Appendf(nil, `{%s,"config":%s,"layers":%s}`, children, odd, odd)); err != nil || len(info.Manifests) != 1 {
			t.Errorf("config and layers of a list are %s: %+v, %v", odd, info, err)
		}
	}
}

// A letter can be decoded although its event has the maximal depth of nesting.
func TestLetterMaxDepth(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for _, depth := range []int{9998, 9999, 10_000} {
		event := event.Event{Version: event.Version, Time: time.Now()}
		payload := event.EncodePushed([]byte(strings.Repeat("[", depth) + strings.Repeat("]", depth)))
		if err := r.dead.Add(journal.Pushes, "records", uint64(depth), "a test", payload); err != nil {
			t.Fatal(err)
		}
	}
	if letters := r.letters(); len(letters) != 3 {
		t.Errorf("%d letters, want 3", len(letters))
	}
}

// imageOf is an image with one ordinary layer before the given ones.
func imageOf(t testing.TB, layers ...map[string]any) Push {
	t.Helper()
	list := append([]map[string]any{descriptor(v1.MediaTypeImageLayerGzip, "ordinary", 1000)}, layers...)
	return document(t, map[string]any{
		"schemaVersion": 2, "mediaType": v1.MediaTypeImageManifest,
		"config": descriptor(v1.MediaTypeImageConfig, fmt.Sprint(layers), 100), "layers": list,
	})
}

func document(t testing.TB, fields map[string]any) Push {
	t.Helper()
	payload, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	layers, _ := fields["layers"].([]map[string]any)
	return Push{
		Repository: "oss/app", Tag: "v1", Digest: digest.FromBytes(payload).String(), MediaType: fields["mediaType"].(string),
		Payload: payload, Layers: len(layers),
	}
}

// A layer that is not valid in a record does not affect the other records, and the result
// reports it.
func TestOddLayers(t *testing.T) {
	t.Parallel()
	layer := func(mediaType string, size any) map[string]any {
		return map[string]any{"mediaType": mediaType, "digest": digest.FromString("odd").String(), "size": size}
	}
	long := "application/vnd.example." + strings.Repeat("x", 231)
	const skipped, digests = "no record for 1 layer with an impossible size", "no record for 1 layer without a valid digest of at most 128 bytes"
	const changed = "another media type in the record of 1 layer"
	for name, test := range map[string]struct {
		layer     map[string]any
		mediaType string // of its record; "": no record
		reason    string
	}{
		"ordinary":                {layer("application/x-tar; compression=zstd", 5), "application/x-tar; compression=zstd", ""},
		"a media type of 128":     {layer(long[:128], 5), long[:128], ""},
		"a media type of 255":     {layer(long, 5), event.OtherMediaType, changed},
		"parameters up to 255":    {layer("application/x-tar; a="+strings.Repeat("x", 234), 5), "application/x-tar", changed},
		"a newline in parameters": {layer("application/x-tar; a=\n", 5), "application/x-tar", changed},
		"NUL and bidi":            {layer("application/x\x00\u202egpj", 5), event.OtherMediaType, changed},
		"no media type":           {layer("see https://evil.example", 5), event.OtherMediaType, changed},
		"of a terabyte":           {layer(v1.MediaTypeImageLayer, 1_000_000_000_000), v1.MediaTypeImageLayer, ""},
		"a negative size":         {layer(v1.MediaTypeImageLayer, -1), "", skipped},
		"9 PB":                    {layer(v1.MediaTypeImageLayer, 9_000_000_000_000_000), "", skipped},
		"above 2^53":              {layer(v1.MediaTypeImageLayer, int64(1)<<53), "", skipped},
		"the highest size":        {layer(v1.MediaTypeImageLayer, int64(math.MaxInt64)), "", skipped},
		"sha512": {map[string]any{
			"mediaType": v1.MediaTypeImageLayer, "digest": digest.SHA512.FromString("odd").String(), "size": 5,
		}, "", digests},
		"no digest": {map[string]any{"mediaType": v1.MediaTypeImageLayer, "digest": "sha256:\u202e", "size": 5}, "", digests},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			p := imageOf(t, test.layer)
			r.push(p)
			r.drain()
			want := map[string]string{digest.FromString("ordinary").String(): v1.MediaTypeImageLayerGzip}
			if test.mediaType != "" {
				want[digest.FromString("odd").String()] = test.mediaType
			}
			got := map[string]string{}
			for _, record := range r.list(lexicon.NSIDLayer) {
				got[record["digest"].(string)] = record["mediaType"].(string)
			}
			if !maps.Equal(got, want) {
				t.Errorf("records of %v, want %v", got, want)
			}
			pushes, err := r.Pushes(1, false)
			if err != nil || len(pushes) != 1 {
				t.Fatal(pushes, err)
			}
			if got := pushes[0]; got.State != stateDone || got.Reason != test.reason || *got.LayersRecorded != len(want) {
				t.Errorf("the push is %+v with %d records, want %d and %q", got, *got.LayersRecorded, len(want), test.reason)
			}
			if letters := r.letters(); len(letters) > 0 {
				t.Errorf("given up: %+v", letters)
			}
			var counted float64
			for _, outcome := range []string{"skipped", "changed"} {
				counted += testutil.ToFloat64(r.metrics.Layers.WithLabelValues(outcome))
			}
			if (counted == 1) != (test.reason != "") {
				t.Errorf("the metrics have %v odd layers", counted)
			}
			r.consistent()
		})
	}
}

// The result of a push without valid layers has the reason.
func TestOnlyOddLayers(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.push(document(t, map[string]any{
		"mediaType": v1.MediaTypeImageManifest, "layers": []map[string]any{{"digest": digest.SHA512.FromString("odd").String()}},
	}))
	r.drain()
	pushes, err := r.Pushes(1, false)
	if err != nil || len(pushes) != 1 || !strings.HasPrefix(pushes[0].Reason, "no record for 1 layer") {
		t.Errorf("%+v, %v", pushes, err)
	}
}

// What is shown of an index is short and has only known characters, whatever its pusher
// writes into it.
func TestFilterIndex(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	var children []map[string]any
	add := func(os, architecture, variant, version string) {
		d := descriptor(v1.MediaTypeImageManifest, fmt.Sprint(len(children)), 7)
		d["platform"] = map[string]any{"os": os, "architecture": architecture, "variant": variant, "os.version": version}
		d["annotations"] = map[string]any{"a": "free coins"}
		children = append(children, d)
	}
	add(strings.Repeat("linux", 100_000), "amd64", "", "")
	add("linux", "", "", "")
	add("linux", "amd64", "\n\u202e", "")
	add("windows", "amd64", "", "10.0.1")
	add("windows", "amd64", "", "10.0.2")
	add("free", "evil_coins", "evil.com", "")
	add("<b>linux</b>", "amd64", "", "")
	add("unknown", strings.Repeat("unknown", 1000), "", "")
	for i := range 100 {
		add("linux", "arm", fmt.Sprintf("v%d", i), "")
	}
	p := document(t, map[string]any{"mediaType": v1.MediaTypeImageIndex, "manifests": children})
	r.push(p)
	r.drain()
	got := event.PlatformsOf(&r.event(1).Manifest)
	if len(got) != event.MaxPlatforms || !slices.Equal(got[:4], []string{"linux/amd64", "windows/amd64", "linux/arm/v0", "linux/arm/v1"}) {
		t.Errorf("%d platforms: %q", len(got), got)
	}
	e, err := json.Marshal(r.event(1))
	if err != nil || strings.Contains(string(e), "free") || strings.Contains(string(e), "linuxlinux") || strings.Contains(string(e), "unknownunknown") {
		t.Errorf("the event has text that was to be removed: %d bytes, %v", len(e), err)
	}
}

// The kind is the same for a push, whose media types are filtered, and for a pull, whose
// media types are not.
func TestKindOfFiltered(t *testing.T) {
	t.Parallel()
	for _, mediaType := range []string{
		"application/vnd.in-toto+json", "application/vnd.in-toto+json\x00", "application/x; a=" + strings.Repeat("in-toto", 30), "in-toto",
		"application/vnd.dev.cosign.simplesigning.v1+json", strings.Repeat("cosign.simplesigning", 10) + "/a", "a/" + strings.Repeat("cosign.simplesigning", 6),
	} {
		p := document(t, map[string]any{
			"mediaType": v1.MediaTypeImageManifest, "config": descriptor(v1.MediaTypeImageConfig, "c", 1),
			"layers": []map[string]any{{"mediaType": mediaType, "digest": digest.FromString("l").String(), "size": 1}},
		})
		info, err := event.ReadManifest(p.MediaType, p.Payload)
		if err != nil {
			t.Fatal(err)
		}
		pull := Pull{MediaType: p.MediaType, ConfigMediaType: v1.MediaTypeImageConfig, Layers: []v1.Descriptor{{MediaType: mediaType}}}
		if push, pull := event.KindOf(&info, "").CountedAs(""), pull.countedAs(); push != pull {
			t.Errorf("%.40q is pushed as %s and pulled as %s", mediaType, push, pull)
		}
	}
}
