package middleware

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tidings-dev/tidings/internal/race"
	"github.com/tidings-dev/tidings/notifier/stats"
)

// serveTidings serves a registry with all parts of Tidings. Every repository is
// public; more has additional options.
func serveTidings(t *testing.T, more configuration.Parameters, change ...func(*configuration.Configuration)) *testRegistry {
	t.Helper()
	options := configuration.Parameters{"data": t.TempDir(), "public": []any{"**"}, "reserve": "1MiB"}
	for name, value := range more {
		options[name] = value
	}
	config := configure(t, observedYAML, append(change, func(c *configuration.Configuration) {
		c.Log.Level = "error"
		c.Middleware["repository"] = []configuration.Middleware{{Name: Name, Options: options}}
	})...)
	h, err := Open(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	r := serve(t, config, h.Wrap, nil)
	r.handler = h
	return r
}

// api decodes a response of the JSON API into v.
func (r *testRegistry) api(path string, v any) {
	r.t.Helper()
	a := r.do("GET", stats.Prefix+path, nil)
	if a.status != http.StatusOK {
		r.t.Fatalf("%s: %d %s", path, a.status, a.body)
	}
	if err := json.Unmarshal(a.body, v); err != nil {
		r.t.Fatalf("%s: %v in %s", path, err, a.body)
	}
}

// waitForPushes waits until the API lists n pushes and all are done, and returns them.
func (r *testRegistry) waitForPushes(n int, done func(stats.Push) bool) []stats.Push {
	r.t.Helper()
	var answer struct{ Pushes []stats.Push }
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		r.api("pushes?limit=1000", &answer)
		missing := max(n-len(answer.Pushes), 0)
		for _, p := range answer.Pushes {
			if !done(p) {
				missing++
			}
		}
		if missing == 0 {
			return answer.Pushes
		}
	}
	r.t.Fatalf("timeout waiting for %d pushes: %+v", n, answer.Pushes)
	return nil
}

// Manifests with unusual members are accepted or refused exactly as by plain
// distribution, with the same error, and each accepted push is counted.
func TestUnusualManifests(t *testing.T) {
	race.Skip(t, "its requests run one after another")
	t.Parallel()
	plain := serve(t, configure(t, plainYAML), unwrapped, nil)
	ours := serveTidings(t, nil)
	for _, r := range []*testRegistry{plain, ours} {
		r.blob("oss/app", []byte("config"))
		r.blob("oss/app", []byte("layer"))
	}
	accepted := 0
	for _, mediaType := range []string{v1.MediaTypeImageManifest, dockerImage, v1.MediaTypeImageIndex, dockerList} {
		for i, member := range unusualMembers() {
			var responses [2]string
			for k, r := range []*testRegistry{plain, ours} {
				d := manifestWith(mediaType, member)
				a := r.push("oss/app", fmt.Sprintf("v%d", i), d)
				responses[k] = varying.ReplaceAllString(fmt.Sprintf("%d %s", a.status, a.body), "…")
				if k == 1 && a.status == http.StatusCreated {
					accepted++
				}
			}
			if responses[0] != responses[1] {
				t.Errorf("%s with %.100s\nplain distribution: %s\nours: %s", mediaType, member, responses[0], responses[1])
			}
		}
	}
	if accepted < 60 {
		t.Errorf("only %d pushes were accepted", accepted)
	}
	ours.waitForPushes(accepted, func(p stats.Push) bool { return p.State == "counted" })
	var counts struct{ Pushes int }
	if ours.api("repositories/oss/app", &counts); counts.Pushes != accepted {
		t.Errorf("%d pushes are counted, want %d", counts.Pushes, accepted)
	}
}

// Long values in a manifest do not make the responses of the API longer.
func TestLongManifests(t *testing.T) {
	race.Skip(t, "its requests run one after another")
	t.Parallel()
	r := serveTidings(t, nil)
	const pushes = 4
	image := r.pushImage()
	long := strings.Repeat("linux", 700_000)
	for i := range pushes {
		d := manifestWith(v1.MediaTypeImageIndex, fmt.Sprintf(`"annotations":{"n":"%d"},"manifests":[{"mediaType":%q,"digest":%q,"size":2,"platform":{"os":%q,"architecture":"amd64"},"annotations":{"a":"b"}}]`,
			i, v1.MediaTypeImageManifest, image.digest, long))
		if a := r.push("oss/app", fmt.Sprintf("v%d", i), d); a.status != http.StatusCreated {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	r.waitForPushes(pushes+1, func(p stats.Push) bool { return p.State == "counted" })
	if a := r.do("GET", stats.Prefix+"pushes", nil); len(a.body) > (pushes+1)*500 {
		t.Errorf("the list of pushes has %d bytes", len(a.body))
	}
}

// pushImage pushes an image by digest.
func (r *testRegistry) pushImage() manifest {
	r.t.Helper()
	r.blob("oss/app", []byte("config"))
	r.blob("oss/app", []byte("layer"))
	d := manifestWith(v1.MediaTypeImageManifest, `"annotations":{}`)
	if a := r.push("oss/app", d.digest, d); a.status != http.StatusCreated {
		r.t.Fatalf("%d %s", a.status, a.body)
	}
	return d
}

// unusualMembers returns members of a manifest that its media type does not have,
// or that have values of an unusual type.
func unusualMembers() []string {
	var members []string
	for _, name := range []string{"artifactType", "subject", "annotations", "manifests", "layers", "config", "data", "urls"} {
		for _, value := range []string{`5`, `"x"`, `[]`, `[5]`, `{}`, `null`, `{"digest":5}`, `{"size":1e400}`} {
			if (name == "layers" || name == "config" || name == "manifests") && value == "null" {
				continue // replaces a required member
			}
			members = append(members, fmt.Sprintf(`%q:%s`, name, value))
		}
	}
	// encoding/json accepts 10,000 levels, and a journal entry adds one to those of
	// the manifest.
	deep := strings.Repeat("[", 9998) + strings.Repeat("]", 9998)
	return append(members, `"deep":`+deep, `"deep":[`+deep+`]`, `"deep":[[`+deep+`]]`, `"annotations":{"a":"\ud800 \u0000"}`, `"x":1e999`)
}

// manifestWith returns a manifest of the media type whose last member is given as
// JSON.
func manifestWith(mediaType, member string) manifest {
	body := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":6},"layers":[{"mediaType":%q,"digest":%q,"size":5}],%s}`,
		mediaType, v1.MediaTypeImageConfig, digest.FromString("config"), v1.MediaTypeImageLayerGzip, digest.FromString("layer"), member)
	if mediaType == v1.MediaTypeImageIndex || mediaType == dockerList {
		body = fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[],%s}`, mediaType, member)
	}
	return manifest{mediaType, digestOf(body), []byte(body)}
}

func digestOf(body string) string { return digest.FromString(body).String() }
