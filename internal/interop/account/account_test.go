package account

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image/png"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/internal/interop/pds"
	"github.com/tidings-dev/tidings/notifier/card"
	"github.com/tidings-dev/tidings/notifier/post"
)

const root = "../../.."

// A follower finds exactly the records of the layers of public images, and a post for each
// public image with a version tag, with a picture that the PDS serves.
func TestFollow(t *testing.T) {
	reference, registry := start(t)
	first, second, third, fourth := newImage(t, 1), newImage(t, 2), newImage(t, 3), newImage(t, 4)
	second = mutate.ConfigMediaType(mutate.MediaType(second, types.OCIManifestSchema1), types.OCIConfigJSON)
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: second}, mutate.IndexAddendum{Add: third})
	hidden := newImage(t, 1)

	push := func(target string, m remote.Taggable) {
		t.Helper()
		push(t, registry, target, m)
	}
	push("oss/docker:v1.0.0", first)
	push("oss/docker:again", first)
	push("oss/multi:v2.0.0", index)
	push("oss/oci:edge", fourth) // no version
	push("secret/app:v1.0.0", hidden)
	waitDrained(t, registry)

	got := follow(t, reference)
	if got.DID != reference.DID {
		t.Errorf("the handle is resolved to %s, want %s", got.DID, reference.DID)
	}
	var wantLayers []string
	for _, m := range []v1.Image{first, second, third, fourth} {
		wantLayers = append(wantLayers, layersOf(t, reference.DID, m)...)
	}
	compare(t, "layer records", got.layers(), wantLayers)
	compare(t, "posts", got.posts(), []string{
		"oss/docker:v1.0.0@" + digestOf(t, first),
		"oss/multi:v2.0.0@" + digestOf(t, index),
	})
	for _, record := range got.Records[lexicon.NSIDPost] {
		checkPicture(t, reference, record.Value)
	}
	for collection := range got.Records {
		if !slices.Contains([]string{lexicon.NSIDLayer, lexicon.NSIDPost}, collection) {
			t.Errorf("records of an unexpected collection %s", collection)
		}
	}
}

// checkPicture checks that the PDS has taken the picture of a post, and serves it. It
// validates the post, since it knows its schema.
func checkPicture(t *testing.T, s *pds.Server, record map[string]any) {
	t.Helper()
	raw, err := json.Marshal(record)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := lexicon.FromJSON(raw)
	if err != nil {
		t.Fatal(err)
	}
	blobs, err := lexicon.BlobsIn(encoded)
	if err != nil || len(blobs) != 1 || blobs[0].MimeType != card.MediaType {
		t.Fatalf("a post has the blobs %v, %v, want one picture: %s", blobs, err, raw)
	}
	query := url.Values{"did": {s.DID}, "cid": {blobs[0].Ref.String()}}
	q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/xrpc/com.atproto.sync.getBlob?"+query.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Body.Close()
	content, err := io.ReadAll(p.Body)
	if err != nil || p.StatusCode != http.StatusOK || int64(len(content)) != blobs[0].Size {
		t.Fatalf("getBlob: status %d, %d bytes of %d, %v", p.StatusCode, len(content), blobs[0].Size, err)
	}
	if m, err := png.DecodeConfig(bytes.NewReader(content)); err != nil || m.Width != card.Width || m.Height != card.Height {
		t.Errorf("the picture has %d×%d pixels, %v", m.Width, m.Height, err)
	}
}

// start starts the reference PDS and a registry that publishes to its account.
func start(t *testing.T) (*pds.Server, *pds.Registry) {
	t.Helper()
	reference, program := startReference(t)
	// Without stats records nothing is written while the follower reads.
	registry, err := pds.NewRegistry(t.Context(), program, filepath.Join(t.TempDir(), "registry"), reference, "        announce: {collect: 0s, cooldown: 0s, daily_limit: 0}\n        stats: {records: off}\n")
	if err != nil {
		t.Fatal(err)
	}
	startRegistry(t, registry)
	return reference, registry
}

// startReference starts the reference PDS, and builds the program.
func startReference(t *testing.T) (reference *pds.Server, program string) {
	t.Helper()
	if os.Getenv("TIDINGS_INTEROP") == "" {
		t.Skip("needs the reference PDS: run `make interop`, or set TIDINGS_INTEROP=1")
	}
	ctx, dir := t.Context(), t.TempDir()
	if err := pds.Install(ctx, root); err != nil {
		t.Fatal(err)
	}
	program, err := pds.Build(ctx, root, dir)
	if err != nil {
		t.Fatal(err)
	}
	if reference, err = pds.StartReference(ctx, root, filepath.Join(dir, "pds")); err != nil {
		t.Fatal(err)
	}
	stopAtEnd(t, reference.Stop)
	return reference, program
}

// startRegistry starts a registry, whose log is shown if the test or the stop fails.
func startRegistry(t *testing.T, registry *pds.Registry) {
	t.Helper()
	if err := registry.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := registry.Stop(); err != nil {
			t.Errorf("stop the registry: %v", err)
		}
		if log, err := os.ReadFile(registry.LogFile()); t.Failed() {
			t.Logf("the registry's log: %s %v", log, err)
		}
	})
}

func stopAtEnd(t *testing.T, stop func() error) {
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func waitDrained(t *testing.T, registry *pds.Registry) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := registry.WaitDrained(ctx); err != nil {
		t.Fatal(err)
	}
}

// tag returns the reference of a repository and tag, such as "oss/app:v1".
func tag(t *testing.T, registry *pds.Registry, target string) name.Tag {
	t.Helper()
	ref, err := name.NewTag(registry.Host+"/"+target, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// push pushes an image or index with its tag.
func push(t *testing.T, registry *pds.Registry, target string, m remote.Taggable) {
	t.Helper()
	if err := remote.Push(tag(t, registry, target), m, remote.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
}

func newImage(t *testing.T, layers int64) v1.Image {
	t.Helper()
	m, err := random.Image(1000, layers)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func digestOf(t *testing.T, m interface{ Digest() (v1.Hash, error) }) string {
	t.Helper()
	digest, err := m.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest.String()
}

// layersOf describes the records that the layers of an image should have.
func layersOf(t *testing.T, owner string, m v1.Image) []string {
	t.Helper()
	manifest, err := m.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	var records []string
	for _, l := range manifest.Layers {
		records = append(records, describe(map[string]any{
			"digest": l.Digest, "size": l.Size, "mediaType": l.MediaType, "userDid": owner,
			"manifest": lexicon.ManifestURI(owner, digestOf(t, m)),
		}))
	}
	return records
}

func describe(layer map[string]any) string {
	return fmt.Sprintf("%v of %v, %v bytes of %v, of %v", layer["digest"], layer["manifest"], layer["size"], layer["mediaType"], layer["userDid"])
}

// A reading is what follow.mjs prints.
type reading struct {
	DID     string
	Records map[string][]struct{ Value map[string]any } // by collection
}

// follow reads the account.
func follow(t *testing.T, s *pds.Server) reading {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "node", "follow.mjs", s.URL, s.PLC, pds.Handle)
	cmd.Dir, cmd.Stderr = filepath.Join(root, "testdata/interop"), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal("follow.mjs: ", err)
	}
	var got reading
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	return got
}

func (r reading) layers() []string {
	var list []string
	for _, record := range r.Records[lexicon.NSIDLayer] {
		list = append(list, describe(record.Value))
	}
	return list
}

func (r reading) posts() []string {
	var list []string
	for _, record := range r.Records[lexicon.NSIDPost] {
		image, _ := post.Origin(record.Value)
		list = append(list, image.Repository+":"+image.Tag+"@"+image.Digest)
	}
	return list
}

// compare compares lists in any order.
func compare(t *testing.T, what string, got, want []string) {
	t.Helper()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s:\ngot  %q\nwant %q", what, got, want)
	}
}
