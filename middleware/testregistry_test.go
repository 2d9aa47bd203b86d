package middleware

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/configuration"
	_ "github.com/distribution/distribution/v3/registry/auth/silly"
	app "github.com/distribution/distribution/v3/registry/handlers"
	repositorymiddleware "github.com/distribution/distribution/v3/registry/middleware/repository"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
)

func TestMain(m *testing.M) {
	logrus.SetOutput(io.Discard)
	for _, name := range []string{"inner", "outer"} {
		if err := repositorymiddleware.Register(name, hook(name)); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

const plainYAML = `
version: 0.1
log: {accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: %q}
  delete: {enabled: true}
  maintenance: {uploadpurging: {enabled: false}}
http: {addr: "127.0.0.1:0", secret: "not a secret", relativeurls: true}
`

const observedYAML = plainYAML + `
middleware:
  repository: [{name: inner}, {name: tidings}, {name: outer}]
`

// configure parses a configuration whose storage is a temporary folder.
func configure(t *testing.T, yaml string, change ...func(*configuration.Configuration)) *configuration.Configuration {
	t.Helper()
	config, err := configuration.Parse(strings.NewReader(fmt.Sprintf(yaml, t.TempDir())))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range change {
		c(config)
	}
	return config
}

// testRegistry is a registry with storage on disk behind an HTTP server.
type testRegistry struct {
	t        *testing.T
	url      string // where /v2/ is
	config   *configuration.Configuration
	handler  *Handler
	recorder *fakeRecorder
	client   *http.Client
}

// serveObserved serves a registry with our middleware and a fakeRecorder.
func serveObserved(t *testing.T, inner, outer *hooks, change ...func(*configuration.Configuration)) *testRegistry {
	t.Helper()
	config := configure(t, observedYAML, change...)
	hooked.Store(hookKey{"inner", config}, inner)
	hooked.Store(hookKey{"outer", config}, outer)
	rec := &fakeRecorder{alias: map[string]string{}}
	h, err := start(config, parts{recorder: rec})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	r := serve(t, config, h.Wrap, rec)
	r.handler = h
	return r
}

// serve serves a registry whose app is wrapped by wrap. rec may be nil.
func serve(t *testing.T, config *configuration.Configuration, wrap func(http.Handler) http.Handler, rec *fakeRecorder) *testRegistry {
	t.Helper()
	a := app.NewApp(context.Background(), config)
	handler := wrap(a)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rec != nil {
			w = &statusWriter{ResponseWriter: w, recorder: rec}
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		server.Close()
		if err := a.Shutdown(); err != nil {
			t.Errorf("shut down: %v", err)
		}
	})
	return &testRegistry{t: t, url: server.URL + strings.TrimRight(config.HTTP.Prefix, "/"), config: config, recorder: rec, client: server.Client()}
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

// do sends a request. header lists keys and values in turn.
func (r *testRegistry) do(method, path string, body []byte, header ...string) answer {
	r.t.Helper()
	a, err := r.try(context.Background(), method, path, body, header...)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

// try is do for requests that may fail.
func (r *testRegistry) try(ctx context.Context, method, path string, body []byte, header ...string) (answer, error) {
	url := path
	if !strings.HasPrefix(path, "http") {
		url = r.url + path
	}
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	for i := 0; i < len(header); i += 2 {
		request.Header.Add(header[i], header[i+1])
	}
	response, err := r.client.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, got}, err
}

// expect compares the lines of the recorder since the last call.
func (r *testRegistry) expect(what string, want ...string) {
	r.t.Helper()
	if got := r.recorder.take(); !slices.Equal(got, want) {
		r.t.Errorf("%s\n got %q\nwant %q", what, got, want)
	}
}

// blob stores a blob.
func (r *testRegistry) blob(repo string, content []byte) v1.Descriptor {
	r.t.Helper()
	opened := r.do("POST", "/v2/"+repo+"/blobs/uploads/", nil)
	dgst := digest.FromBytes(content)
	location := opened.header.Get("Location")
	location = location[strings.Index(location, "/v2/"):]
	if stored := r.do("PUT", location+"&digest="+dgst.String(), content); stored.status != http.StatusCreated {
		r.t.Fatalf("store a blob: %d %s", stored.status, stored.body)
	}
	return v1.Descriptor{MediaType: v1.MediaTypeImageLayerGzip, Digest: dgst, Size: int64(len(content))}
}

// manifest is an image manifest or an index.
type manifest struct {
	mediaType string
	digest    string
	body      []byte
}

const (
	dockerImage = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList  = "application/vnd.docker.distribution.manifest.list.v2+json"
	acceptAll   = v1.MediaTypeImageManifest + ", " + v1.MediaTypeImageIndex + ", " + dockerImage + ", " + dockerList
)

func (r *testRegistry) manifest(alias, mediaType string, fields map[string]any) manifest {
	r.t.Helper()
	fields["schemaVersion"] = 2
	fields["mediaType"] = mediaType
	body, err := json.Marshal(fields)
	if err != nil {
		r.t.Fatal(err)
	}
	d := manifest{mediaType, digest.FromBytes(body).String(), body}
	if r.recorder != nil {
		r.recorder.alias[d.digest] = alias
	}
	return d
}

// image stores a config and a layer and returns a manifest of them.
func (r *testRegistry) image(repo, alias, mediaType string) manifest {
	r.t.Helper()
	config, layer := r.blob(repo, []byte(`{"of":"`+alias+`"}`)), r.blob(repo, []byte("layer of "+alias))
	config.MediaType = v1.MediaTypeImageConfig
	return r.manifest(alias, mediaType, map[string]any{"config": config, "layers": []v1.Descriptor{layer}})
}

func (r *testRegistry) index(alias, mediaType string, children ...manifest) manifest {
	r.t.Helper()
	listed := []any{}
	for _, c := range children {
		listed = append(listed, map[string]any{"mediaType": c.mediaType, "digest": c.digest, "size": len(c.body),
			"platform": map[string]string{"architecture": "amd64", "os": "linux"}})
	}
	return r.manifest(alias, mediaType, map[string]any{"manifests": listed})
}

// push pushes a manifest by tag or digest.
func (r *testRegistry) push(repo, reference string, d manifest) answer {
	r.t.Helper()
	return r.do("PUT", "/v2/"+repo+"/manifests/"+reference, d.body, "Content-Type", d.mediaType)
}

func (r *testRegistry) mustPush(repo, reference string, d manifest) {
	r.t.Helper()
	if a := r.push(repo, reference, d); a.status != http.StatusCreated {
		r.t.Fatalf("push %s:%s: %d %s", repo, reference, a.status, a.body)
	}
	r.recorder.take()
}

var errDisk = errors.New("write /secret/path/journal: no space left on device")
