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
	"sync"
	"testing"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/configuration"
	_ "github.com/distribution/distribution/v3/registry/auth/silly"
	app "github.com/distribution/distribution/v3/registry/handlers"
	repositorymiddleware "github.com/distribution/distribution/v3/registry/middleware/repository"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	"github.com/tidings-dev/tidings/middleware/observe"
	"github.com/tidings-dev/tidings/notifier"
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

// fakeRecorder writes down, in order, what the recorder hears and which status leaves.
type fakeRecorder struct {
	mu      sync.Mutex
	lines   []string
	alias   map[string]string // digest → short name
	pushes  []notifier.Push
	pulls   []notifier.Pull
	deletes []notifier.Delete

	intend      func(notifier.Push) error
	complete    func(context.Context, notifier.Push) error
	undeletable func(notifier.Delete) error
	deleted     func(notifier.Delete) error
	deleting    func(context.Context)
}

func (rec *fakeRecorder) add(format string, args ...any) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	line := fmt.Sprintf(format, args...)
	for dgst, name := range rec.alias {
		line = strings.ReplaceAll(line, dgst, name)
	}
	rec.lines = append(rec.lines, line)
}

// take returns what was heard since the last take.
func (rec *fakeRecorder) take() []string {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	lines := rec.lines
	rec.lines = nil
	return lines
}

func (rec *fakeRecorder) Intend(_ context.Context, p notifier.Push) (observe.Intent, error) {
	rec.mu.Lock()
	rec.pushes = append(rec.pushes, p)
	rec.mu.Unlock()
	if rec.intend != nil {
		if err := rec.intend(p); err != nil {
			rec.add("refuse %s:%s %s", p.Repository, p.Tag, p.Digest)
			return nil, err
		}
	}
	rec.add("intend %s:%s %s", p.Repository, p.Tag, p.Digest)
	return &fakeIntent{recorder: rec, push: p}, nil
}

func (rec *fakeRecorder) IntendDelete(_ context.Context, d notifier.Delete) (observe.Intent, error) {
	rec.mu.Lock()
	rec.deletes = append(rec.deletes, d)
	rec.mu.Unlock()
	if rec.undeletable != nil {
		if err := rec.undeletable(d); err != nil {
			rec.add("refuse delete %s:%s %s", d.Repository, d.Tag, d.Digest)
			return nil, err
		}
	}
	return &fakeDelete{rec, d}, nil
}

// fakeDelete notes only how the delete ended.
type fakeDelete struct {
	recorder *fakeRecorder
	delete   notifier.Delete
}

func (i *fakeDelete) end(how string) {
	i.recorder.add("%s %s:%s %s", how, i.delete.Repository, i.delete.Tag, i.delete.Digest)
}

func (i *fakeDelete) Complete(ctx context.Context) error {
	i.end("delete")
	if i.recorder.deleting != nil {
		i.recorder.deleting(ctx)
	}
	if i.recorder.deleted != nil {
		return i.recorder.deleted(i.delete)
	}
	return ctx.Err()
}

func (i *fakeDelete) Abandon() { i.end("abandon delete") }
func (i *fakeDelete) Release() { i.end("release delete") }

func (rec *fakeRecorder) Pull(p notifier.Pull) {
	rec.mu.Lock()
	rec.pulls = append(rec.pulls, p)
	rec.mu.Unlock()
	rec.add("%s %s:%s %s", p.Method, p.Repository, p.Tag, p.Digest)
}

type fakeIntent struct {
	recorder *fakeRecorder
	push     notifier.Push
	done     bool
}

func (i *fakeIntent) end(how string) {
	if i.done {
		how = "again " + how
	}
	i.done = true
	i.recorder.add("%s %s:%s %s", how, i.push.Repository, i.push.Tag, i.push.Digest)
}

func (i *fakeIntent) Complete(ctx context.Context) error {
	i.end("complete")
	if i.recorder.complete != nil {
		return i.recorder.complete(ctx, i.push)
	}
	return ctx.Err()
}

func (i *fakeIntent) Abandon() { i.end("abandon") }
func (i *fakeIntent) Release() { i.end("release") }

// statusWriter notes each status when it leaves the server, after everything else.
type statusWriter struct {
	http.ResponseWriter
	recorder *fakeRecorder
	written  bool
}

func (w *statusWriter) WriteHeader(status int) {
	w.written = w.written || status >= 200
	w.recorder.add("status %d", status)
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(p []byte) (int, error) {
	if !w.written {
		w.written = true
		w.recorder.add("status 200")
	}
	return w.ResponseWriter.Write(p)
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// hooks is a middleware of the tests on either side of ours, for faults.
type hooks struct {
	put    func(ctx context.Context, inner func() (digest.Digest, error)) (digest.Digest, error)
	get    func(inner func() (distribution.Manifest, error)) (distribution.Manifest, error)
	tag    func(inner func() error) error
	untag  func(ctx context.Context, inner func() error) error
	lookup func() error
}

var hooked sync.Map // "inner" or "outer" + configuration → *hooks

type hookKey struct {
	side   string
	config *configuration.Configuration
}

func hook(side string) repositorymiddleware.InitFunc {
	return func(ctx context.Context, repo distribution.Repository, _ map[string]any) (distribution.Repository, error) {
		found, _ := hooked.Load(hookKey{side, ctx.(*app.App).Config})
		if h, ok := found.(*hooks); ok {
			return &hookedRepository{repo, h}, nil
		}
		return repo, nil
	}
}

type hookedRepository struct {
	distribution.Repository
	hooks *hooks
}

func (r *hookedRepository) Manifests(ctx context.Context, o ...distribution.ManifestServiceOption) (distribution.ManifestService, error) {
	m, err := r.Repository.Manifests(ctx, o...)
	return &hookedManifests{m, r.hooks}, err
}

func (r *hookedRepository) Tags(ctx context.Context) distribution.TagService {
	return &hookedTags{r.Repository.Tags(ctx), r.hooks}
}

type hookedManifests struct {
	distribution.ManifestService
	hooks *hooks
}

func (m *hookedManifests) Put(ctx context.Context, manifest distribution.Manifest, o ...distribution.ManifestServiceOption) (digest.Digest, error) {
	inner := func() (digest.Digest, error) { return m.ManifestService.Put(ctx, manifest, o...) }
	if m.hooks.put != nil {
		return m.hooks.put(ctx, inner)
	}
	return inner()
}

func (m *hookedManifests) Get(ctx context.Context, dgst digest.Digest, o ...distribution.ManifestServiceOption) (distribution.Manifest, error) {
	inner := func() (distribution.Manifest, error) { return m.ManifestService.Get(ctx, dgst, o...) }
	if m.hooks.get != nil {
		return m.hooks.get(inner)
	}
	return inner()
}

type hookedTags struct {
	distribution.TagService
	hooks *hooks
}

func (t *hookedTags) Tag(ctx context.Context, tag string, desc v1.Descriptor) error {
	inner := func() error { return t.TagService.Tag(ctx, tag, desc) }
	if t.hooks.tag != nil {
		return t.hooks.tag(inner)
	}
	return inner()
}

func (t *hookedTags) Untag(ctx context.Context, tag string) error {
	inner := func() error { return t.TagService.Untag(ctx, tag) }
	if t.hooks.untag != nil {
		return t.hooks.untag(ctx, inner)
	}
	return inner()
}

func (t *hookedTags) Lookup(ctx context.Context, desc v1.Descriptor) ([]string, error) {
	if t.hooks.lookup != nil {
		if err := t.hooks.lookup(); err != nil {
			return nil, err
		}
	}
	return t.TagService.Lookup(ctx, desc)
}

const plainYAML = `
version: 0.1
log: {accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: %s}
  delete: {enabled: true}
  maintenance: {uploadpurging: {enabled: false}}
http: {addr: "127.0.0.1:0", secret: "not a secret", relativeurls: true}
`

const observedYAML = plainYAML + `
middleware:
  repository: [{name: inner}, {name: tidings}, {name: outer}]
`

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

// testRegistry is a registry on real storage behind a real HTTP server.
type testRegistry struct {
	t        *testing.T
	url      string // where /v2/ is
	config   *configuration.Configuration
	handler  *Handler
	recorder *fakeRecorder
	client   *http.Client
}

// serveObserved serves a registry with our middleware, which tells a tape.
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

// do asks; header is key, value, key, value …
func (r *testRegistry) do(method, path string, body []byte, header ...string) answer {
	r.t.Helper()
	a, err := r.try(context.Background(), method, path, body, header...)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

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

func (r *testRegistry) expect(what string, want ...string) {
	r.t.Helper()
	if got := r.recorder.take(); !slices.Equal(got, want) {
		r.t.Errorf("%s\n got %q\nwant %q", what, got, want)
	}
}

func (r *testRegistry) blob(repo string, content []byte) v1.Descriptor {
	r.t.Helper()
	opened := r.do("POST", "/v2/"+repo+"/blobs/uploads/", nil)
	dgst := digest.FromBytes(content)
	where := opened.header.Get("Location")
	where = where[strings.Index(where, "/v2/"):]
	if stored := r.do("PUT", where+"&digest="+dgst.String(), content); stored.status != http.StatusCreated {
		r.t.Fatalf("store a blob: %d %s", stored.status, stored.body)
	}
	return v1.Descriptor{MediaType: v1.MediaTypeImageLayerGzip, Digest: dgst, Size: int64(len(content))}
}

// document is a manifest of some kind, ready to push.
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

// image stores a config and a layer and makes a manifest of them.
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
