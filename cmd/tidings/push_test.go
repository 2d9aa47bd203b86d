package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// pushed is a pushed artifact with its expected records and post.
type pushed struct {
	repository, tag string
	layers          int
	post            bool
}

// pushAll pushes an artifact of each kind with go-containerregistry.
func pushAll(t *testing.T, s *server, space string) []pushed {
	t.Helper()
	ref := func(repository, tag string) name.Reference {
		r, err := name.NewTag(s.host+"/"+repository+":"+tag, name.Insecure)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	randomImage := func(layers int64, mediaType types.MediaType) v1.Image {
		img, err := random.Image(512, layers)
		if err != nil {
			t.Fatal(err)
		}
		img = mutate.MediaType(img, mediaType)
		if mediaType == types.OCIManifestSchema1 {
			img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
		}
		return img
	}
	push := func(repository, tag string, img v1.Image) {
		if err := remote.Write(ref(repository, tag), img); err != nil {
			t.Fatal(err)
		}
	}
	oci := randomImage(3, types.OCIManifestSchema1)
	push(space+"/oci", "v1.0.0", oci)
	push(space+"/docker", "v1.0.0", randomImage(2, types.DockerManifestSchema2))

	index := mutate.IndexMediaType(mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: randomImage(2, types.OCIManifestSchema1), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}},
		mutate.IndexAddendum{Add: randomImage(1, types.OCIManifestSchema1), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}}},
	), types.OCIImageIndex)
	if err := remote.WriteIndex(ref(space+"/multi", "v1.0.0"), index); err != nil {
		t.Fatal(err)
	}
	chart := mutate.ConfigMediaType(randomImage(1, types.OCIManifestSchema1), "application/vnd.cncf.helm.config.v1+json")
	push(space+"/chart", "1.0.0", chart)

	return []pushed{
		{space + "/oci", "v1.0.0", 3, true},
		{space + "/docker", "v1.0.0", 2, true},
		{space + "/multi", "v1.0.0", 3, true},
		{space + "/chart", "1.0.0", 1, false},
	}
}

type repositoryAnswer struct {
	Name   string `json:"name"`
	Pulls  int64  `json:"pulls"`
	Pushes int64  `json:"pushes"`
}

func (s *server) repositories(header ...string) map[string]repositoryAnswer {
	s.t.Helper()
	var answer struct {
		Repositories []repositoryAnswer `json:"repositories"`
	}
	s.json(s.t, "/tidings/api/v1/repositories?limit=1000", &answer, header...)
	found := map[string]repositoryAnswer{}
	for _, r := range answer.Repositories {
		found[r.Name] = r
	}
	return found
}

// counts returns the counts of a repository.
func (s *server) counts(repository string) repositoryAnswer {
	s.t.Helper()
	var answer repositoryAnswer
	s.json(s.t, "/tidings/api/v1/repositories/"+repository, &answer, s.token()...)
	return answer
}

const (
	layerCollection = "io.atcr.hold.layer"
	postCollection  = "app.bsky.feed.post"
)

// An artifact of each kind is pushed to a public repository: each layer has one record,
// each image one post, and the counts are exact.
func TestPush(t *testing.T) {
	t.Parallel()
	s := newServer(t, settings{options: `announce: {tags: ["*"], collect: 300ms, cooldown: 0s, daily_limit: 0, link: "https://example.com/{{.Repository}}?tag={{.Tag}}"}`})
	s.start()
	all := pushAll(t, s, "oss")
	s.waitDrained()

	layers, posts := 0, 0
	for _, m := range all {
		layers += m.layers
		if m.post {
			posts++
		}
	}
	if got := s.records(t, s.did, layerCollection); len(got) != layers {
		t.Errorf("%d layer records, want %d", len(got), layers)
	}
	got := s.records(t, s.did, postCollection)
	if len(got) != posts {
		t.Errorf("%d posts, want %d", len(got), posts)
	}
	for _, p := range got {
		text := p.Value["text"].(string)
		if !strings.Contains(text, "was pushed") || !strings.Contains(text, "docker pull localhost:") {
			t.Errorf("post text %q", text)
		}
		name, _, _ := strings.Cut(text, " ")
		repository, tag, _ := strings.Cut(name, ":")
		if got, want := linked(t, p), name+" https://example.com/"+repository+"?tag="+tag; got != want {
			t.Errorf("post links %q, want %q", got, want)
		}
		if strings.HasPrefix(text, "oss/multi") && !strings.Contains(text, "linux/amd64, linux/arm64") {
			t.Errorf("post text of the index %q", text)
		}
	}
	want := map[string]int64{"oss/oci": 1, "oss/docker": 1, "oss/multi": 3, "oss/chart": 1}
	for name, r := range s.repositories() {
		if r.Pushes != want[name] {
			t.Errorf("%s: %d pushes, want %d", name, r.Pushes, want[name])
		}
		delete(want, name)
	}
	if len(want) > 0 {
		t.Errorf("missing repositories: %v", want)
	}

	// Pushed again, and under another tag: one more push each, no record, no post.
	from := s.host + "/oss/oci:v1.0.0"
	for _, to := range []string{"v1.0.0", "v1.0.1"} {
		img, err := crane.Pull(from, crane.Insecure)
		if err != nil {
			t.Fatal(err)
		}
		if err := crane.Push(img, s.host+"/oss/oci:"+to, crane.Insecure); err != nil {
			t.Fatal(err)
		}
	}
	m := newImage(1)
	s.push(t, "oss/again", "v1", m)
	s.push(t, "oss/again", "v1", m)
	s.push(t, "oss/again", "v2", m)
	s.waitDrained()
	if got := s.records(t, s.did, layerCollection); len(got) != layers+1 {
		t.Errorf("%d layer records after pushing again, want %d", len(got), layers+1)
	}
	if got := s.records(t, s.did, postCollection); len(got) != posts+1 {
		t.Errorf("%d posts after pushing again, want %d", len(got), posts+1)
	}
	if got := s.counts("oss/again").Pushes; got != 3 {
		t.Errorf("%d pushes, want 3", got)
	}
	s.verifyRepo()
	s.stop()
}

// facetLink returns the text and the URL of a post's only facet.
func linked(t *testing.T, post record) string {
	t.Helper()
	raw, err := json.Marshal(post.Value)
	if err != nil {
		t.Fatal(err)
	}
	var value struct {
		Text   string
		Facets []struct {
			Index    struct{ ByteStart, ByteEnd int }
			Features []struct {
				Type string `json:"$type"`
				URI  string
			}
		}
	}
	if err := json.Unmarshal(raw, &value); err != nil {
		t.Fatal(err)
	}
	if len(value.Facets) != 1 || len(value.Facets[0].Features) != 1 {
		return fmt.Sprint(value.Facets)
	}
	facet := value.Facets[0]
	return value.Text[facet.Index.ByteStart:facet.Index.ByteEnd] + " " + facet.Features[0].URI
}

// The same artifacts in a private repository are only counted.
func TestPushPrivate(t *testing.T) {
	t.Parallel()
	s := newServer(t, settings{})
	s.start()
	all := pushAll(t, s, "secret")
	if _, err := s.get("secret/oci", "v1.0.0"); err != nil {
		t.Fatal(err)
	}
	s.waitDrained()
	for _, collection := range []string{layerCollection, postCollection} {
		if got := s.records(t, s.did, collection); len(got) != 0 {
			t.Errorf("%d records in %s", len(got), collection)
		}
	}
	if got := s.repositories(); len(got) != 0 {
		t.Errorf("anonymous response of the API: %v", got)
	}
	seen := s.repositories(s.token()...)
	if len(seen) != len(all) || seen["secret/oci"].Pulls != 1 || seen["secret/oci"].Pushes != 1 {
		t.Errorf("response of the API with the token: %v", seen)
	}
	for _, path := range []string{"repositories/secret/oci", "repositories/secret/oci/daily?days=2", "repositories/never/was"} {
		res, body, err := s.do("GET", "/tidings/api/v1/"+path, "", nil)
		if err != nil || res.StatusCode != 404 {
			t.Errorf("%s: %v %v %s", path, res.Status, err, body)
		}
	}
	for _, path := range []string{"pushes?limit=100", "health"} {
		_, body, err := s.do("GET", "/tidings/api/v1/"+path, "", nil)
		if err != nil || strings.Contains(string(body), "secret") {
			t.Errorf("%s: %v %s", path, err, body)
		}
	}
	res, car, err := s.do("GET", "/xrpc/com.atproto.sync.getRepo?did="+s.did, "", nil)
	if err != nil || res.StatusCode != 200 || strings.Contains(string(car), "secret") {
		t.Errorf("getRepo: %v %v %s", res.Status, err, fmt.Sprintf("%.200q", car))
	}
	s.verifyRepo()
}
