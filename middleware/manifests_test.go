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

	"github.com/tidings-dev/tidings/notifier/stats"
)

// serveTidings serves a registry with all of Tidings on top, where every repository is
// public. more are options beside that.
func serveTidings(t *testing.T, more configuration.Parameters) *testRegistry {
	t.Helper()
	options := configuration.Parameters{"data": t.TempDir(), "public": []any{"**"}, "reserve": "1MiB"}
	for name, value := range more {
		options[name] = value
	}
	config := configure(t, observedYAML, func(c *configuration.Configuration) {
		c.Log.Level = "error"
		c.Middleware["repository"] = []configuration.Middleware{{Name: Name, Options: options}}
	})
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

// api reads an answer of the JSON API into v.
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

// pushes reads the newest pushes once there are n of which all is known.
func (r *testRegistry) pushes(n int, known func(stats.Push) bool) []stats.Push {
	r.t.Helper()
	var answer struct{ Pushes []stats.Push }
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		r.api("pushes?limit=1000", &answer)
		missing := max(n-len(answer.Pushes), 0)
		for _, p := range answer.Pushes {
			if !known(p) {
				missing++
			}
		}
		if missing == 0 {
			return answer.Pushes
		}
	}
	r.t.Fatalf("it never had %d pushes of which all is known: %+v", n, answer.Pushes)
	return nil
}

// What plain distribution takes is taken, whatever a manifest holds in members
// that its media type does not have, and what plain distribution refuses is
// refused in the same words. Each push that is taken is counted.
func TestOddManifests(t *testing.T) {
	t.Parallel()
	plain := serve(t, configure(t, plainYAML), unwrapped, nil)
	ours := serveTidings(t, nil)
	for _, r := range []*testRegistry{plain, ours} {
		r.blob("oss/app", []byte("config"))
		r.blob("oss/app", []byte("layer"))
	}
	taken := 0
	for _, mediaType := range []string{v1.MediaTypeImageManifest, dockerImage, v1.MediaTypeImageIndex, dockerList} {
		for i, odd := range unusualMembers() {
			var said [2]string
			for k, r := range []*testRegistry{plain, ours} {
				d := manifestWith(mediaType, odd)
				a := r.push("oss/app", fmt.Sprintf("v%d", i), d)
				said[k] = varying.ReplaceAllString(fmt.Sprintf("%d %s", a.status, a.body), "…")
				if k == 1 && a.status == http.StatusCreated {
					taken++
				}
			}
			if said[0] != said[1] {
				t.Errorf("%s with %.100s\nplain distribution: %s\nours: %s", mediaType, odd, said[0], said[1])
			}
		}
	}
	if taken < 60 {
		t.Errorf("only %d pushes were taken", taken)
	}
	ours.pushes(taken, func(p stats.Push) bool { return p.State == "counted" })
	var numbers struct{ Pushes int }
	if ours.api("repositories/oss/app", &numbers); numbers.Pushes != taken {
		t.Errorf("%d pushes are counted, want %d", numbers.Pushes, taken)
	}
}

// What a pusher writes, of any length, costs those nothing who read the API.
func TestLongManifests(t *testing.T) {
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
	r.pushes(pushes+1, func(p stats.Push) bool { return p.State == "counted" })
	if a := r.do("GET", stats.Prefix+"pushes", nil); len(a.body) > (pushes+1)*500 {
		t.Errorf("the pushes take %d bytes", len(a.body))
	}
}

// child is an image that is stored by its digest.
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

// unusualMembers are what a manifest may end with.
func unusualMembers() []string {
	var odd []string
	for _, name := range []string{"artifactType", "subject", "annotations", "manifests", "layers", "config", "data", "urls"} {
		for _, value := range []string{`5`, `"x"`, `[]`, `[5]`, `{}`, `null`, `{"digest":5}`, `{"size":1e400}`} {
			if (name == "layers" || name == "config" || name == "manifests") && value == "null" {
				continue // takes the place of what makes it a manifest
			}
			odd = append(odd, fmt.Sprintf(`%q:%s`, name, value))
		}
	}
	// encoding/json takes 10,000 levels, and a journal has the manifest one deeper.
	deep := strings.Repeat("[", 9998) + strings.Repeat("]", 9998)
	return append(odd, `"deep":`+deep, `"deep":[`+deep+`]`, `"deep":[[`+deep+`]]`, `"annotations":{"a":"\ud800 \u0000"}`, `"x":1e999`)
}

// ending is a manifest of the media type that ends with a member.
func manifestWith(mediaType, member string) manifest {
	body := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":6},"layers":[{"mediaType":%q,"digest":%q,"size":5}],%s}`,
		mediaType, v1.MediaTypeImageConfig, digest.FromString("config"), v1.MediaTypeImageLayerGzip, digest.FromString("layer"), member)
	if mediaType == v1.MediaTypeImageIndex || mediaType == dockerList {
		body = fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[],%s}`, mediaType, member)
	}
	return manifest{mediaType, digestOf(body), []byte(body)}
}

func digestOf(body string) string { return digest.FromString(body).String() }
