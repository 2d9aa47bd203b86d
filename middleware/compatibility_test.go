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

// The same requests get the same responses, byte for byte, from plain distribution
// and from distribution with our middleware.
func TestCompatibility(t *testing.T) {
	t.Parallel()
	plain := serve(t, configure(t, plainYAML), unwrapped, nil)
	ours := serveObserved(t, &hooks{}, &hooks{})
	var transcripts [2][]string
	for i, r := range []*testRegistry{plain, ours} {
		transcripts[i] = transcript(r)
	}
	if len(transcripts[0]) != len(transcripts[1]) || len(transcripts[0]) < 50 {
		t.Fatalf("%d responses of plain distribution, %d of ours", len(transcripts[0]), len(transcripts[1]))
	}
	for i := range transcripts[0] {
		if transcripts[0][i] != transcripts[1][i] {
			t.Errorf("plain distribution:\n%s\nours:\n%s", transcripts[0][i], transcripts[1][i])
		}
	}
}

// Parts of responses that differ between registries or runs.
var (
	varying     = regexp.MustCompile(`127\.0\.0\.1:\d+|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|_state=[^&"]+`)
	timeHeaders = []string{"Date", "Last-Modified"}
)

// transcript sends many kinds of requests and returns them with their responses.
func transcript(r *testRegistry) []string {
	var lines []string
	send := func(method, path string, body []byte, header ...string) answer {
		a := r.do(method, path, body, header...)
		for _, name := range timeHeaders {
			a.header.Del(name)
		}
		var b strings.Builder
		fmt.Fprintf(&b, "%s %s %v\n%d\n", method, path, header, a.status)
		for _, name := range slices.Sorted(maps.Keys(a.header)) {
			fmt.Fprintf(&b, "%s: %q\n", name, a.header[name])
		}
		fmt.Fprintf(&b, "%s", a.body)
		lines = append(lines, varying.ReplaceAllString(b.String(), "…"))
		return a
	}
	upload := func(repo string) string {
		a := send("POST", "/v2/"+repo+"/blobs/uploads/", nil)
		location := a.header.Get("Location")
		return location[strings.Index(location, "/v2/"):]
	}

	// Blobs: complete, in chunks, mounted, ranges, missing.
	content := bytes.Repeat([]byte("0123456789"), 100)
	blob := digest.FromBytes(content).String()
	location := upload("oss/app")
	send("PATCH", location, content[:500], "Content-Type", "application/octet-stream")
	location = upload("oss/app")
	finished := r.do("PUT", location+"&digest="+blob, content)
	lines = append(lines, fmt.Sprint("stored ", finished.status, finished.header.Get("Docker-Content-Digest")))
	send("GET", "/v2/oss/app/blobs/"+blob, nil)
	send("HEAD", "/v2/oss/app/blobs/"+blob, nil)
	send("GET", "/v2/oss/app/blobs/"+blob, nil, "Range", "bytes=10-19")
	send("GET", "/v2/oss/app/blobs/"+blob, nil, "Range", "bytes=5000-")
	send("GET", "/v2/oss/app/blobs/"+blob, nil, "If-None-Match", `"`+blob+`"`)
	send("GET", "/v2/oss/app/blobs/"+digest.FromString("?").String(), nil)
	send("POST", "/v2/oss/copy/blobs/uploads/?mount="+blob+"&from=oss/app", nil)
	send("POST", "/v2/oss/copy/blobs/uploads/?mount="+digest.FromString("?").String()+"&from=oss/app", nil)
	send("HEAD", "/v2/oss/copy/blobs/"+blob, nil)

	// Manifests.
	image, old := r.image("oss/app", "IMAGE", v1.MediaTypeImageManifest), r.image("oss/app", "OLD", dockerImage)
	index, list := r.index("INDEX", v1.MediaTypeImageIndex, image), r.index("LIST", dockerList, old)
	const path = "/v2/oss/app/manifests/"
	send("PUT", path+"early", index.body, "Content-Type", index.mediaType) // its child is missing
	for _, p := range []struct {
		reference string
		manifest
	}{{"v1", image}, {"v2", image}, {image.digest, image}, {old.digest, old}, {"multi", index}, {"list", list}, {"bad tag!", image}, {old.digest, image}} {
		send("PUT", path+p.reference, p.body, "Content-Type", p.mediaType)
	}
	send("PUT", path+"v1", []byte("{"), "Content-Type", v1.MediaTypeImageManifest)
	send("PUT", path+"v1", image.body, "Content-Type", "text/plain")
	send("PUT", path+"v1", bytes.Repeat([]byte(" "), 5<<20), "Content-Type", v1.MediaTypeImageManifest)
	for _, reference := range []string{"v1", "multi", "list", "nothing", image.digest, list.digest, digest.FromString("?").String(), "sha256:abc"} {
		for _, method := range []string{"GET", "HEAD"} {
			for _, accept := range []string{acceptAll, dockerImage, "text/plain"} {
				send(method, path+reference, nil, "Accept", accept)
			}
		}
	}
	send("GET", path+"v1", nil, "Accept", acceptAll, "If-None-Match", `"`+image.digest+`"`)
	send("GET", path+"v1", nil, "Accept", acceptAll, "Range", "bytes=0-9")
	send("OPTIONS", path+"v1", nil)
	send("POST", path+"v1", nil)

	// Lists, and paths that do not exist.
	for _, p := range []string{"/", "/v2/", "/v2", "/v2/_catalog", "/v2/_catalog?n=1", "/v2/oss/app/tags/list", "/v2/oss/app/tags/list?n=2",
		"/v2/unknown/tags/list", "/v2/oss/app/referrers/" + image.digest, "/v2/oss/app/manifests/", "/v2/oss/app/manifests", "/xrpc/_health", "/tidings/"} {
		send("GET", p, nil)
	}

	// Deletes.
	send("DELETE", path+"v2", nil)
	send("DELETE", path+"v2", nil)
	send("DELETE", path+image.digest, nil)
	send("DELETE", path+image.digest, nil)
	send("GET", path+"v1", nil, "Accept", acceptAll)
	send("GET", "/v2/oss/app/tags/list", nil)
	send("DELETE", "/v2/oss/app/blobs/"+blob, nil)
	send("GET", "/v2/oss/app/blobs/"+blob, nil)
	return lines
}

// The results of a client library (go-containerregistry) are the same for plain
// distribution and with our middleware.
func TestCompatibilityWithClient(t *testing.T) {
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
	var transcripts [2][]string
	for i, r := range []*testRegistry{plain, ours} {
		add := func(format string, args ...any) {
			transcripts[i] = append(transcripts[i], fmt.Sprintf(format, args...))
		}
		at := func(reference string) name.Reference {
			ref, err := name.ParseReference(strings.TrimPrefix(r.url, "http://") + "/" + reference)
			if err != nil {
				t.Fatal(err)
			}
			return ref
		}
		add("push: %v", remote.Write(at("oss/app:v1"), image))
		add("push index: %v", remote.WriteIndex(at("oss/app:multi"), index))
		add("tag: %v", remote.Tag(at("oss/app:latest").(name.Tag), image))
		pulled, err := remote.Image(at("oss/app:v1"))
		if err != nil {
			t.Fatal(err)
		}
		add("mount: %v", remote.Write(at("oss/copy:v1"), pulled))
		digest, err := pulled.Digest()
		add("pull: %v %v", digest, err)
		layers, err := pulled.Layers()
		if err != nil || len(layers) != 3 {
			t.Fatalf("%d layers, %v", len(layers), err)
		}
		head, err := remote.Head(at("oss/app:multi"))
		add("head: %+v %v", head, err)
		list, err := remote.List(at("oss/app:v1").Context())
		add("list: %v %v", list, err)
		add("delete a tag: %v", remote.Delete(at("oss/app:latest")))
		add("delete: %v", remote.Delete(at("oss/app@"+digest.String())))
		list, err = remote.List(at("oss/app:v1").Context())
		add("list: %v %v", list, err)
	}
	for i := range transcripts[0] {
		if transcripts[0][i] != transcripts[1][i] {
			t.Errorf("plain distribution: %s\nours: %s", transcripts[0][i], transcripts[1][i])
		}
		if strings.HasPrefix(transcripts[1][i], "push") && !strings.HasSuffix(transcripts[1][i], "<nil>") {
			t.Error(transcripts[1][i])
		}
	}
	completed := 0
	for _, line := range ours.recorder.take() {
		if strings.HasPrefix(line, "complete ") {
			completed++
		}
	}
	if want := 6; completed != want { // v1, two children, multi, latest, oss/copy:v1
		t.Errorf("%d pushes recorded, want %d", completed, want)
	}
}
