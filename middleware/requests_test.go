package middleware

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tidings-dev/tidings/notifier"
)

// All kinds of manifest requests: their status, and the calls of the recorder, which
// come before the status is sent.
func TestRequests(t *testing.T) {
	t.Parallel()
	r := serveObserved(t, &hooks{}, &hooks{})
	image := r.image("oss/app", "IMAGE", v1.MediaTypeImageManifest)
	old := r.image("oss/app", "OLD", dockerImage)
	index := r.index("INDEX", v1.MediaTypeImageIndex, image)
	list := r.index("LIST", dockerList, old)
	incomplete := r.manifest("INCOMPLETE", v1.MediaTypeImageManifest, map[string]any{
		"config": v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: digest.FromString("nowhere"), Size: 7},
		"layers": []v1.Descriptor{}})
	orphan := r.index("ORPHAN", v1.MediaTypeImageIndex, manifest{v1.MediaTypeImageManifest, digest.FromString("no child").String(), []byte("x")})
	layer := digest.FromString("layer of IMAGE").String()
	r.recorder.take()

	const path = "/v2/oss/app/manifests/"
	put := func(d manifest) []string { return []string{"Content-Type", d.mediaType} }
	accept := func(s string) []string { return []string{"Accept", s} }
	steps := []struct {
		name, method, path string
		body               []byte
		header             []string
		status             int
		want               []string // calls of the recorder before the status
	}{
		{"push by tag", "PUT", path + "v1", image.body, put(image), 201, []string{"intend oss/app:v1 IMAGE", "complete oss/app:v1 IMAGE"}},
		{"push the same again", "PUT", path + "v1", image.body, put(image), 201, []string{"intend oss/app:v1 IMAGE", "complete oss/app:v1 IMAGE"}},
		{"push by digest", "PUT", path + image.digest, image.body, put(image), 201, []string{"intend oss/app: IMAGE", "complete oss/app: IMAGE"}},
		{"push an index", "PUT", path + "multi", index.body, put(index), 201, []string{"intend oss/app:multi INDEX", "complete oss/app:multi INDEX"}},
		{"push a docker image by digest", "PUT", path + old.digest, old.body, put(old), 201, []string{"intend oss/app: OLD", "complete oss/app: OLD"}},
		{"push a docker list", "PUT", path + "list", list.body, put(list), 201, []string{"intend oss/app:list LIST", "complete oss/app:list LIST"}},
		{"push with a blob missing", "PUT", path + "incomplete", incomplete.body, put(incomplete), 400, []string{"intend oss/app:incomplete INCOMPLETE", "abandon oss/app:incomplete INCOMPLETE"}},
		{"push an index with a child missing", "PUT", path + "orphan", orphan.body, put(orphan), 400, []string{"intend oss/app:orphan ORPHAN", "abandon oss/app:orphan ORPHAN"}},
		{"push by the digest of another manifest", "PUT", path + old.digest, image.body, put(image), 400, nil},
		{"push invalid JSON", "PUT", path + "v1", []byte("}"), put(image), 400, nil},
		{"push with no media type", "PUT", path + "v1", image.body, nil, 400, nil},

		{"GET by tag", "GET", path + "v1", nil, accept(acceptAll), 200, []string{"GET oss/app:v1 IMAGE"}},
		{"HEAD by tag", "HEAD", path + "v1", nil, accept(acceptAll), 200, []string{"HEAD oss/app:v1 IMAGE"}},
		{"GET by digest", "GET", path + image.digest, nil, accept(acceptAll), 200, []string{"GET oss/app: IMAGE"}},
		{"HEAD by digest", "HEAD", path + image.digest, nil, accept(acceptAll), 200, []string{"HEAD oss/app: IMAGE"}},
		{"GET of an index by tag", "GET", path + "multi", nil, accept(acceptAll), 200, []string{"GET oss/app:multi INDEX"}},
		{"GET of a docker list by tag", "GET", path + "list", nil, accept(acceptAll), 200, []string{"GET oss/app:list LIST"}},
		{"GET of a docker list without an Accept for lists, which the host answers with the child", "GET", path + "list", nil, accept(dockerImage), 200, []string{"GET oss/app:list LIST"}},
		{"GET of a docker list without an Accept for lists or images", "GET", path + "list", nil, accept("text/plain"), 400, nil},
		{"conditional GET by tag", "GET", path + "v1", nil, []string{"If-None-Match", `"` + image.digest + `"`}, 304, nil},
		{"conditional GET by digest", "GET", path + image.digest, nil, []string{"If-None-Match", image.digest}, 304, nil},
		{"GET without an OCI Accept", "GET", path + "v1", nil, accept(dockerImage), 404, nil},
		{"HEAD without an OCI Accept", "HEAD", path + "v1", nil, nil, 404, nil},
		{"GET of an index without an Accept for it, which the host serves", "GET", path + "multi", nil, accept(v1.MediaTypeImageManifest), 200, []string{"GET oss/app:multi INDEX"}},
		{"GET of an unknown tag", "GET", path + "v9", nil, accept(acceptAll), 404, nil},
		{"GET of an unknown digest", "GET", path + digest.FromString("?").String(), nil, accept(acceptAll), 404, nil},
		{"GET in an unknown repository", "GET", "/v2/unknown/manifests/v1", nil, accept(acceptAll), 404, nil},
		{"GET of an invalid digest", "GET", path + "sha256:abc", nil, accept(acceptAll), 400, nil},
		{"POST", "POST", path + "v1", nil, nil, 405, nil},

		{"GET of a blob", "GET", "/v2/oss/app/blobs/" + layer, nil, nil, 200, nil},
		{"HEAD of a blob", "HEAD", "/v2/oss/app/blobs/" + layer, nil, nil, 200, nil},
		{"list of tags", "GET", "/v2/oss/app/tags/list", nil, nil, 200, nil},
		{"catalog", "GET", "/v2/_catalog", nil, nil, 200, nil},
		{"API base", "GET", "/v2/", nil, nil, 200, nil},
		{"referrers, which the host does not implement", "GET", "/v2/oss/app/referrers/" + image.digest, nil, nil, 404, nil},

		{"DELETE of a tag", "DELETE", path + "multi", nil, nil, 202, []string{"delete oss/app:multi "}},
		{"DELETE of an unknown tag", "DELETE", path + "multi", nil, nil, 404, []string{"abandon delete oss/app:multi "}},
		{"push under a second tag", "PUT", path + "latest", image.body, put(image), 201, []string{"intend oss/app:latest IMAGE", "complete oss/app:latest IMAGE"}},
		{"DELETE of a digest that two tags point at", "DELETE", path + image.digest, nil, nil, 202,
			[]string{"delete oss/app: IMAGE", "delete oss/app:latest ", "delete oss/app:v1 "}},
		{"DELETE of an unknown digest, which may have records left", "DELETE", path + digest.FromString("?").String(), nil, nil, 404,
			[]string{"delete oss/app: " + digest.FromString("?").String()}},
	}
	for _, s := range steps {
		a := r.do(s.method, s.path, s.body, s.header...)
		if a.status != s.status {
			t.Errorf("%s: status %d, want %d: %s", s.name, a.status, s.status, a.body)
		}
		got := r.recorder.take()
		if n := len(got); n == 0 || got[n-1] != fmt.Sprintf("status %d", s.status) {
			t.Errorf("%s: the status was not sent last: %q", s.name, got)
		} else {
			got = got[:n-1]
		}
		if s.method == "DELETE" && len(got) > 1 {
			slices.Sort(got[1:]) // tags are deleted concurrently
		}
		if !slices.Equal(got, s.want) {
			t.Errorf("%s:\n got %q\nwant %q", s.name, got, s.want)
		}
	}
}

// Events are recorded before the status is sent.
func TestEventBeforeStatus(t *testing.T) {
	t.Parallel()
	r := serveObserved(t, &hooks{}, &hooks{})
	image := r.image("app", "IMAGE", v1.MediaTypeImageManifest)
	r.recorder.take()
	r.push("app", "v1", image)
	r.expect("push", "intend app:v1 IMAGE", "complete app:v1 IMAGE", "status 201")
	r.do("HEAD", "/v2/app/manifests/v1", nil, "Accept", acceptAll)
	r.expect("HEAD", "HEAD app:v1 IMAGE", "status 200")
	r.do("DELETE", "/v2/app/manifests/v1", nil)
	r.expect("delete", "delete app:v1 ", "status 202")
}

// The fields of pushes, pulls and deletes.
func TestEventFields(t *testing.T) {
	t.Parallel()
	r := serveObserved(t, &hooks{}, &hooks{}, func(c *configuration.Configuration) {
		c.Auth = configuration.Auth{"silly": {"realm": "r", "service": "s"}}
	})
	authorized := r.client.Transport
	r.client = &http.Client{Transport: roundTrip(func(q *http.Request) (*http.Response, error) {
		if q.Header.Get("Anonymous") == "" {
			q.Header.Set("Authorization", "anything")
		}
		return authorized.RoundTrip(q)
	})}
	image := r.image("a/manifests/b", "IMAGE", v1.MediaTypeImageManifest)
	index := r.index("INDEX", v1.MediaTypeImageIndex, image)
	r.mustPush("a/manifests/b", image.digest, image)
	r.mustPush("a/manifests/b", "multi", index)
	for _, path := range []string{"multi", image.digest} {
		r.do("GET", "/v2/a/manifests/b/manifests/"+path, nil, "Accept", acceptAll, "User-Agent", "test/1", "X-Forwarded-For", "192.0.2.7, 10.0.0.1")
	}
	r.do("DELETE", "/v2/a/manifests/b/manifests/multi", nil)
	if a := r.do("GET", "/v2/a/manifests/b/manifests/multi", nil, "Anonymous", "yes"); a.status != 401 {
		t.Errorf("anonymous: status %d, want 401", a.status)
	}

	rec := r.recorder
	if len(rec.pushes) != 2 || len(rec.pulls) != 2 || len(rec.deletes) != 1 {
		t.Fatalf("%d pushes, %d pulls, %d deletes; want 2, 2, 1", len(rec.pushes), len(rec.pulls), len(rec.deletes))
	}
	ids := map[string]bool{}
	id := func(s *string) { ids[*s] = true; *s = "" }
	id(&rec.pushes[0].RequestID)
	id(&rec.pushes[1].RequestID)
	id(&rec.deletes[0].RequestID)
	if len(ids) != 3 || ids[""] {
		t.Errorf("request ids are missing or not unique: %v", ids)
	}
	check := func(what string, got, want any) {
		t.Helper()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s\n got %+v\nwant %+v", what, got, want)
		}
	}
	const repo, actor, client, agent = "a/manifests/b", "silly", "127.0.0.1", "Go-http-client/1.1"
	if listed := rec.pushes[0].Listed; len(listed) != 1 || listed[0].MediaType != v1.MediaTypeImageLayerGzip || listed[0].Size == 0 {
		t.Errorf("push by digest: layers %+v", listed)
	}
	rec.pushes[0].Listed = nil
	check("push by digest", rec.pushes[0], notifier.Push{Repository: repo, Digest: image.digest, MediaType: image.mediaType, Payload: image.body, Layers: 1, Actor: actor, Client: client, UserAgent: agent})
	check("push by tag", rec.pushes[1], notifier.Push{Repository: repo, Tag: "multi", Digest: index.digest, MediaType: index.mediaType, Payload: index.body, Children: []string{image.digest}, Actor: actor, Client: client, UserAgent: agent})
	check("pull of the index", rec.pulls[0], notifier.Pull{Method: "GET", Repository: repo, Tag: "multi", Digest: index.digest, MediaType: index.mediaType,
		Children: []string{image.digest}, Actor: actor, Client: "192.0.2.7", UserAgent: "test/1"})
	layers := rec.pulls[1].Layers
	if len(layers) != 1 || layers[0].MediaType != v1.MediaTypeImageLayerGzip {
		t.Errorf("pull of the child: layers %+v", layers)
	}
	check("pull of the child", rec.pulls[1], notifier.Pull{Method: "GET", Repository: repo, Digest: image.digest, MediaType: image.mediaType,
		ConfigMediaType: v1.MediaTypeImageConfig, Layers: layers, Actor: actor, Client: "192.0.2.7", UserAgent: "test/1"})
	check("delete", rec.deletes[0], notifier.Delete{Repository: repo, Tag: "multi", Actor: actor})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A user name that was not authenticated is not recorded as the actor.
func TestUnauthenticatedActor(t *testing.T) {
	t.Parallel()
	r := serveObserved(t, &hooks{}, &hooks{})
	image := r.image("app", "IMAGE", v1.MediaTypeImageManifest)
	r.do("PUT", "/v2/app/manifests/v1", image.body, "Content-Type", image.mediaType, "Authorization", "Basic YWxpY2U6eA==")
	if got := r.recorder.pushes[0].Actor; got != "" {
		t.Errorf("actor %q, want none", got)
	}
}

func TestPrefix(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{"/deep/er/", "/deep"} {
		r := serveObserved(t, &hooks{}, &hooks{}, func(c *configuration.Configuration) { c.HTTP.Prefix = prefix })
		image := r.image("app", "IMAGE", v1.MediaTypeImageManifest)
		r.recorder.take()
		r.push("app", "v1", image)
		r.expect(prefix, "intend app:v1 IMAGE", "complete app:v1 IMAGE", "status 201")
	}
}

// Requests that the host refuses by its configuration are not recorded.
func TestRefusedByConfiguration(t *testing.T) {
	t.Parallel()
	r := serveObserved(t, &hooks{}, &hooks{}, func(c *configuration.Configuration) {
		c.Storage["maintenance"] = configuration.Parameters{
			"uploadpurging": map[any]any{"enabled": false},
			"readonly":      map[any]any{"enabled": true}}
	})
	image := r.manifest("IMAGE", v1.MediaTypeImageManifest, map[string]any{"layers": []string{}})
	if a := r.push("app", "v1", image); a.status != 405 {
		t.Errorf("push to a read-only registry: status %d, want 405", a.status)
	}
	r.expect("read-only", "status 405")

	r = serveObserved(t, &hooks{}, &hooks{}, func(c *configuration.Configuration) { delete(c.Storage, "delete") })
	if a := r.do("DELETE", "/v2/app/manifests/v1", nil); a.status != 405 {
		t.Errorf("delete: status %d, want 405", a.status)
	}
	r.expect("delete disabled", "status 405")
}

// decodeError decodes an error in the registry's format.
func decodeError(t *testing.T, a answer) (code, message string) {
	t.Helper()
	var decoded struct {
		Errors []struct{ Code, Message string }
	}
	d := json.NewDecoder(strings.NewReader(string(a.body)))
	if err := d.Decode(&decoded); err != nil || len(decoded.Errors) != 1 {
		t.Fatalf("want one registry error, got %q (%v)", a.body, err)
	}
	if d.More() {
		t.Errorf("data after the error: %q", a.body)
	}
	return decoded.Errors[0].Code, decoded.Errors[0].Message
}
