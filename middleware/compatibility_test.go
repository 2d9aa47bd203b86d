package middleware

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func unwrapped(h http.Handler) http.Handler { return h }

// The registry stays the registry: the same conversation with plain
// distribution and with ours on top gives the same answers, byte for byte.
func TestSideBySide(t *testing.T) {
	t.Parallel()
	plain := serve(t, configure(t, plainYAML), unwrapped, nil)
	ours := serveObserved(t, &hooks{}, &hooks{})
	var said [2][]string
	for i, r := range []*testRegistry{plain, ours} {
		said[i] = conversation(r)
	}
	if len(said[0]) != len(said[1]) || len(said[0]) < 50 {
		t.Fatalf("%d answers by plain distribution, %d by ours", len(said[0]), len(said[1]))
	}
	for i := range said[0] {
		if said[0][i] != said[1][i] {
			t.Errorf("plain distribution:\n%s\nours:\n%s", said[0][i], said[1][i])
		}
	}
}

// What differs from one registry to the next, or from one run to the next.
var (
	varying = regexp.MustCompile(`127\.0\.0\.1:\d+|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|_state=[^&"]+`)
	clocks  = []string{"Date", "Last-Modified"}
)

func conversation(r *testRegistry) []string {
	var said []string
	ask := func(method, path string, body []byte, header ...string) answer {
		a := r.do(method, path, body, header...)
		for _, name := range clocks {
			a.header.Del(name)
		}
		var b strings.Builder
		fmt.Fprintf(&b, "%s %s %v\n%d\n", method, path, header, a.status)
		for _, name := range slices.Sorted(maps.Keys(a.header)) {
			fmt.Fprintf(&b, "%s: %q\n", name, a.header[name])
		}
		fmt.Fprintf(&b, "%s", a.body)
		said = append(said, varying.ReplaceAllString(b.String(), "…"))
		return a
	}
	upload := func(repo string) string {
		a := ask("POST", "/v2/"+repo+"/blobs/uploads/", nil)
		where := a.header.Get("Location")
		return where[strings.Index(where, "/v2/"):]
	}
	silently := len(said)

	// blobs: whole, in pieces, mounted, ranged, missing
	content := bytes.Repeat([]byte("0123456789"), 100)
	blob := digest.FromBytes(content).String()
	where := upload("oss/app")
	ask("PATCH", where, content[:500], "Content-Type", "application/octet-stream")
	where = upload("oss/app")
	finished := r.do("PUT", where+"&digest="+blob, content)
	said = append(said, fmt.Sprint("stored ", finished.status, finished.header.Get("Docker-Content-Digest")))
	ask("GET", "/v2/oss/app/blobs/"+blob, nil)
	ask("HEAD", "/v2/oss/app/blobs/"+blob, nil)
	ask("GET", "/v2/oss/app/blobs/"+blob, nil, "Range", "bytes=10-19")
	ask("GET", "/v2/oss/app/blobs/"+blob, nil, "Range", "bytes=5000-")
	ask("GET", "/v2/oss/app/blobs/"+blob, nil, "If-None-Match", `"`+blob+`"`)
	ask("GET", "/v2/oss/app/blobs/"+digest.FromString("?").String(), nil)
	ask("POST", "/v2/oss/copy/blobs/uploads/?mount="+blob+"&from=oss/app", nil)
	ask("POST", "/v2/oss/copy/blobs/uploads/?mount="+digest.FromString("?").String()+"&from=oss/app", nil)
	ask("HEAD", "/v2/oss/copy/blobs/"+blob, nil)

	// manifests
	image, old := r.image("oss/app", "IMAGE", v1.MediaTypeImageManifest), r.image("oss/app", "OLD", dockerImage)
	index, list := r.index("INDEX", v1.MediaTypeImageIndex, image), r.index("LIST", dockerList, old)
	const path = "/v2/oss/app/manifests/"
	ask("PUT", path+"early", index.body, "Content-Type", index.mediaType) // its child is missing
	for _, p := range []struct {
		reference string
		manifest
	}{{"v1", image}, {"v2", image}, {image.digest, image}, {old.digest, old}, {"multi", index}, {"list", list}, {"bad tag!", image}, {old.digest, image}} {
		ask("PUT", path+p.reference, p.body, "Content-Type", p.mediaType)
	}
	ask("PUT", path+"v1", []byte("{"), "Content-Type", v1.MediaTypeImageManifest)
	ask("PUT", path+"v1", image.body, "Content-Type", "text/plain")
	ask("PUT", path+"v1", bytes.Repeat([]byte(" "), 5<<20), "Content-Type", v1.MediaTypeImageManifest)
	for _, reference := range []string{"v1", "multi", "list", "nothing", image.digest, list.digest, digest.FromString("?").String(), "sha256:abc"} {
		for _, method := range []string{"GET", "HEAD"} {
			for _, accept := range []string{acceptAll, dockerImage, "text/plain"} {
				ask(method, path+reference, nil, "Accept", accept)
			}
		}
	}
	ask("GET", path+"v1", nil, "Accept", acceptAll, "If-None-Match", `"`+image.digest+`"`)
	ask("GET", path+"v1", nil, "Accept", acceptAll, "Range", "bytes=0-9")
	ask("OPTIONS", path+"v1", nil)
	ask("POST", path+"v1", nil)

	// lists and what is not there
	for _, p := range []string{"/", "/v2/", "/v2", "/v2/_catalog", "/v2/_catalog?n=1", "/v2/oss/app/tags/list", "/v2/oss/app/tags/list?n=2",
		"/v2/nobody/tags/list", "/v2/oss/app/referrers/" + image.digest, "/v2/oss/app/manifests/", "/v2/oss/app/manifests", "/xrpc/_health", "/tidings/"} {
		ask("GET", p, nil)
	}

	// deletes
	ask("DELETE", path+"v2", nil)
	ask("DELETE", path+"v2", nil)
	ask("DELETE", path+image.digest, nil)
	ask("DELETE", path+image.digest, nil)
	ask("GET", path+"v1", nil, "Accept", acceptAll)
	ask("GET", "/v2/oss/app/tags/list", nil)
	ask("DELETE", "/v2/oss/app/blobs/"+blob, nil)
	ask("GET", "/v2/oss/app/blobs/"+blob, nil)
	return said[silently:]
}

// A real client pushes, mounts, lists, pulls and deletes on both.
func TestSideBySideClient(t *testing.T) {
	t.Parallel()
	plain := serve(t, configure(t, plainYAML), unwrapped, nil)
	ours := serveObserved(t, &hooks{}, &hooks{})
	image, err := random.Image(2048, 3)
	if err != nil {
		t.Fatal(err)
	}
	index, err := random.Index(512, 2, 2)
	if err != nil {
		t.Fatal(err)
	}
	var said [2][]string
	for i, r := range []*testRegistry{plain, ours} {
		note := func(format string, args ...any) { said[i] = append(said[i], fmt.Sprintf(format, args...)) }
		at := func(reference string) name.Reference {
			ref, err := name.ParseReference(strings.TrimPrefix(r.url, "http://") + "/" + reference)
			if err != nil {
				t.Fatal(err)
			}
			return ref
		}
		note("push: %v", remote.Write(at("oss/app:v1"), image))
		note("push index: %v", remote.WriteIndex(at("oss/app:multi"), index))
		note("tag: %v", remote.Tag(at("oss/app:latest").(name.Tag), image))
		pulled, err := remote.Image(at("oss/app:v1"))
		if err != nil {
			t.Fatal(err)
		}
		note("mount: %v", remote.Write(at("oss/copy:v1"), pulled))
		digest, err := pulled.Digest()
		note("pull: %v %v", digest, err)
		layers, err := pulled.Layers()
		if err != nil || len(layers) != 3 {
			t.Fatalf("%d layers, %v", len(layers), err)
		}
		head, err := remote.Head(at("oss/app:multi"))
		note("head: %+v %v", head, err)
		list, err := remote.List(at("oss/app:v1").Context())
		note("list: %v %v", list, err)
		note("delete a tag: %v", remote.Delete(at("oss/app:latest")))
		note("delete: %v", remote.Delete(at("oss/app@"+digest.String())))
		list, err = remote.List(at("oss/app:v1").Context())
		note("list: %v %v", list, err)
	}
	for i := range said[0] {
		if said[0][i] != said[1][i] {
			t.Errorf("plain distribution: %s\nours: %s", said[0][i], said[1][i])
		}
		if strings.HasPrefix(said[1][i], "push") && !strings.HasSuffix(said[1][i], "<nil>") {
			t.Error(said[1][i])
		}
	}
	completed := 0
	for _, line := range ours.recorder.take() {
		if strings.HasPrefix(line, "complete ") {
			completed++
		}
	}
	if want := 6; completed != want { // v1, two children, multi, latest, the copy
		t.Errorf("%d pushes heard, want %d", completed, want)
	}
}
