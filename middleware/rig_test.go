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

// tape writes down, in order, what the recorder hears and which status leaves.
type tape struct {
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

func (tp *tape) note(format string, args ...any) {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	line := fmt.Sprintf(format, args...)
	for dgst, name := range tp.alias {
		line = strings.ReplaceAll(line, dgst, name)
	}
	tp.lines = append(tp.lines, line)
}

// take returns what was heard since the last take.
func (tp *tape) take() []string {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	lines := tp.lines
	tp.lines = nil
	return lines
}

func (tp *tape) Intend(_ context.Context, p notifier.Push) (observe.Intent, error) {
	tp.mu.Lock()
	tp.pushes = append(tp.pushes, p)
	tp.mu.Unlock()
	if tp.intend != nil {
		if err := tp.intend(p); err != nil {
			tp.note("refuse %s:%s %s", p.Repository, p.Tag, p.Digest)
			return nil, err
		}
	}
	tp.note("intend %s:%s %s", p.Repository, p.Tag, p.Digest)
	return &tapeIntent{tape: tp, push: p}, nil
}

func (tp *tape) IntendDelete(_ context.Context, d notifier.Delete) (observe.Intent, error) {
	tp.mu.Lock()
	tp.deletes = append(tp.deletes, d)
	tp.mu.Unlock()
	if tp.undeletable != nil {
		if err := tp.undeletable(d); err != nil {
			tp.note("refuse delete %s:%s %s", d.Repository, d.Tag, d.Digest)
			return nil, err
		}
	}
	return &tapeDelete{tp, d}, nil
}

// tapeDelete notes only how the delete ended.
type tapeDelete struct {
	tape   *tape
	delete notifier.Delete
}

func (i *tapeDelete) end(how string) {
	i.tape.note("%s %s:%s %s", how, i.delete.Repository, i.delete.Tag, i.delete.Digest)
}

func (i *tapeDelete) Complete(ctx context.Context) error {
	i.end("delete")
	if i.tape.deleting != nil {
		i.tape.deleting(ctx)
	}
	if i.tape.deleted != nil {
		return i.tape.deleted(i.delete)
	}
	return ctx.Err()
}

func (i *tapeDelete) Abandon() { i.end("abandon delete") }
func (i *tapeDelete) Release() { i.end("release delete") }

func (tp *tape) Pull(p notifier.Pull) {
	tp.mu.Lock()
	tp.pulls = append(tp.pulls, p)
	tp.mu.Unlock()
	tp.note("%s %s:%s %s", p.Method, p.Repository, p.Tag, p.Digest)
}

type tapeIntent struct {
	tape *tape
	push notifier.Push
	done bool
}

func (i *tapeIntent) end(how string) {
	if i.done {
		how = "again " + how
	}
	i.done = true
	i.tape.note("%s %s:%s %s", how, i.push.Repository, i.push.Tag, i.push.Digest)
}

func (i *tapeIntent) Complete(ctx context.Context) error {
	i.end("complete")
	if i.tape.complete != nil {
		return i.tape.complete(ctx, i.push)
	}
	return ctx.Err()
}

func (i *tapeIntent) Abandon() { i.end("abandon") }
func (i *tapeIntent) Release() { i.end("release") }

// leaving notes each status when it leaves the server, after everything else.
type leaving struct {
	http.ResponseWriter
	tape  *tape
	noted bool
}

func (l *leaving) WriteHeader(status int) {
	l.noted = l.noted || status >= 200
	l.tape.note("status %d", status)
	l.ResponseWriter.WriteHeader(status)
}

func (l *leaving) Write(p []byte) (int, error) {
	if !l.noted {
		l.noted = true
		l.tape.note("status 200")
	}
	return l.ResponseWriter.Write(p)
}

func (l *leaving) Unwrap() http.ResponseWriter { return l.ResponseWriter }

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

const heardYAML = plainYAML + `
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

// rig is a registry on real storage behind a real HTTP server.
type rig struct {
	t       *testing.T
	url     string // where /v2/ is
	config  *configuration.Configuration
	handler *Handler
	tape    *tape
	client  *http.Client
}

// hear serves a registry with our middleware, which tells a tape.
func hear(t *testing.T, inner, outer *hooks, change ...func(*configuration.Configuration)) *rig {
	t.Helper()
	config := configure(t, heardYAML, change...)
	hooked.Store(hookKey{"inner", config}, inner)
	hooked.Store(hookKey{"outer", config}, outer)
	tp := &tape{alias: map[string]string{}}
	h, err := start(config, parts{recorder: tp})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	r := serve(t, config, h.Wrap, tp)
	r.handler = h
	return r
}

func serve(t *testing.T, config *configuration.Configuration, wrap func(http.Handler) http.Handler, tp *tape) *rig {
	t.Helper()
	a := app.NewApp(context.Background(), config)
	handler := wrap(a)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if tp != nil {
			w = &leaving{ResponseWriter: w, tape: tp}
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		server.Close()
		if err := a.Shutdown(); err != nil {
			t.Errorf("shut down: %v", err)
		}
	})
	return &rig{t: t, url: server.URL + strings.TrimRight(config.HTTP.Prefix, "/"), config: config, tape: tp, client: server.Client()}
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

// do asks; header is key, value, key, value …
func (r *rig) do(method, path string, body []byte, header ...string) answer {
	r.t.Helper()
	a, err := r.try(context.Background(), method, path, body, header...)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

func (r *rig) try(ctx context.Context, method, path string, body []byte, header ...string) (answer, error) {
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

func (r *rig) heard(what string, want ...string) {
	r.t.Helper()
	if got := r.tape.take(); !slices.Equal(got, want) {
		r.t.Errorf("%s\n got %q\nwant %q", what, got, want)
	}
}

func (r *rig) blob(repo string, content []byte) v1.Descriptor {
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
type document struct {
	mediaType string
	digest    string
	body      []byte
}

const (
	dockerImage = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList  = "application/vnd.docker.distribution.manifest.list.v2+json"
	anything    = v1.MediaTypeImageManifest + ", " + v1.MediaTypeImageIndex + ", " + dockerImage + ", " + dockerList
)

func (r *rig) document(alias, mediaType string, fields map[string]any) document {
	r.t.Helper()
	fields["schemaVersion"] = 2
	fields["mediaType"] = mediaType
	body, err := json.Marshal(fields)
	if err != nil {
		r.t.Fatal(err)
	}
	d := document{mediaType, digest.FromBytes(body).String(), body}
	if r.tape != nil {
		r.tape.alias[d.digest] = alias
	}
	return d
}

// image stores a config and a layer and makes a manifest of them.
func (r *rig) image(repo, alias, mediaType string) document {
	r.t.Helper()
	config, layer := r.blob(repo, []byte(`{"of":"`+alias+`"}`)), r.blob(repo, []byte("layer of "+alias))
	config.MediaType = v1.MediaTypeImageConfig
	return r.document(alias, mediaType, map[string]any{"config": config, "layers": []v1.Descriptor{layer}})
}

func (r *rig) index(alias, mediaType string, children ...document) document {
	r.t.Helper()
	listed := []any{}
	for _, c := range children {
		listed = append(listed, map[string]any{"mediaType": c.mediaType, "digest": c.digest, "size": len(c.body),
			"platform": map[string]string{"architecture": "amd64", "os": "linux"}})
	}
	return r.document(alias, mediaType, map[string]any{"manifests": listed})
}

func (r *rig) push(repo, reference string, d document) answer {
	r.t.Helper()
	return r.do("PUT", "/v2/"+repo+"/manifests/"+reference, d.body, "Content-Type", d.mediaType)
}

func (r *rig) mustPush(repo, reference string, d document) {
	r.t.Helper()
	if a := r.push(repo, reference, d); a.status != http.StatusCreated {
		r.t.Fatalf("push %s:%s: %d %s", repo, reference, a.status, a.body)
	}
	r.tape.take()
}

var errDisk = errors.New("write /secret/path/journal: no space left on device")
