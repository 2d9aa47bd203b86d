package middleware

import (
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// The classes that requests are counted in, for sequences of requests that follow
// each other without a pause.
func TestRequestClasses(t *testing.T) {
	t.Parallel()
	r := serveTidings(t, nil)
	r.recorder = &fakeRecorder{alias: map[string]string{}}
	const client, other = "198.51.100.1", "198.51.100.2"
	send := func(method, repository, reference, client string) {
		t.Helper()
		a := r.do(method, "/v2/"+repository+"/manifests/"+reference, nil, "Accept", acceptAll, "X-Forwarded-For", client)
		if a.status >= 300 {
			t.Errorf("%s %s %s: %d %s", method, repository, reference, a.status, a.body)
		}
	}
	get := func(repository, reference, client string) { t.Helper(); send("GET", repository, reference, client) }
	type counts map[string]int
	for repository, test := range map[string]struct {
		do   func(repository string, image manifest)
		want counts
	}{
		"index-deleted": {func(name string, image manifest) {
			index := r.index("INDEX", v1.MediaTypeImageIndex, image)
			r.mustPush(name, image.digest, image)
			r.mustPush(name, "v1", index)
			send("DELETE", name, index.digest, client)
			get(name, image.digest, client)
		}, counts{"push": 2, "pull": 1}},
		"one-index-of-two-deleted": {func(name string, image manifest) {
			one, two := r.index("ONE", v1.MediaTypeImageIndex, image), r.index("TWO", v1.MediaTypeImageIndex, image, image)
			r.mustPush(name, image.digest, image)
			r.mustPush(name, "v1", one)
			r.mustPush(name, "v2", two)
			send("DELETE", name, one.digest, client)
			get(name, image.digest, client)
		}, counts{"push": 3, "child": 1}},
		"helm-push": {func(name string, image manifest) {
			r.mustPush(name, image.digest, image)
			if a := r.do("GET", "/v2/"+name+"/manifests/"+image.digest, nil, "Accept", acceptAll); a.status != http.StatusOK {
				t.Error(a.status)
			}
			r.mustPush(name, "v1", image)
			get(name, image.digest, client)
		}, counts{"push": 2, "ignored": 1, "pull": 1}},
		"attestation": {func(name string, image manifest) {
			body := strings.Replace(string(image.body), `{`, `{"artifactType":"application/vnd.in-toto+json",`, 1)
			attestation := manifest{image.mediaType, digestOf(body), []byte(body)}
			r.mustPush(name, "v1", attestation)
			get(name, "v1", client)
			get(name, attestation.digest, other)
			send("HEAD", name, "v1", other)
			r.mustPush(name, "v2", image)
			get(name, "v2", client)
		}, counts{"push": 2, "artifact": 3, "pull": 1}},
		"referrers": {func(name string, image manifest) {
			tag := "sha256-" + strings.Repeat("0a", 32)
			r.mustPush(name, tag, image)
			send("HEAD", name, tag, client)
			get(name, image.digest, client)
		}, counts{"push": 1, "artifact": 2}},
		"head-window": {func(name string, image manifest) {
			index := r.index("INDEX", v1.MediaTypeImageIndex, image)
			r.mustPush(name, "v1-amd64", image)
			r.mustPush(name, "v1", index)
			send("HEAD", name, "v1-amd64", client)
			send("HEAD", name, "v1", client)
			get(name, index.digest, client)
			get(name, image.digest, client)
		}, counts{"push": 2, "head": 2, "pull": 1, "child": 1}},
	} {
		t.Run(repository, func(t *testing.T) {
			test.do(repository, r.image(repository, "IMAGE", v1.MediaTypeImageManifest))
			want, got := 0, counts{}
			for _, n := range test.want {
				want += n
			}
			for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
				if a := r.do("GET", "/tidings/api/v1/repositories/"+repository, nil); a.status == http.StatusNotFound {
					continue // no request has been counted yet
				}
				var answer struct{ Counts counts }
				r.api("repositories/"+repository, &answer)
				got = answer.Counts
				delete(got, "retag")
				total := 0
				for _, n := range got {
					total += n
				}
				if total >= want {
					break
				}
			}
			if !maps.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}
