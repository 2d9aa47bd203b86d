package main

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tidings-dev/tidings/notifier/rediscounts"
	"github.com/tidings-dev/tidings/notifier/rediscounts/redistest"
	"github.com/tidings-dev/tidings/notifier/unused"
)

// history plays requests on simulated days.
type history struct {
	*server
	names map[string]string // of digests
}

// on sets the clock to a day after the installation.
func (h *history) on(day int) { h.setClock(time.Duration(day) * 24 * time.Hour) }

// built returns a manifest with a name and the named layers.
func (h *history) built(name string, subject *image, layers ...string) image {
	m := image{mediaType: ociManifest}
	blob := func(mediaType, content string) map[string]any {
		m.blobs = append(m.blobs, []byte(content))
		return map[string]any{"mediaType": mediaType, "digest": digest.FromString(content).String(), "size": len(content)}
	}
	body := map[string]any{"schemaVersion": 2, "mediaType": ociManifest, "config": blob("application/vnd.oci.image.config.v1+json", fmt.Sprintf(`{"x":%q}`, name))}
	var list []any
	for _, layer := range layers {
		list = append(list, blob("application/vnd.oci.image.layer.v1.tar+gzip", strings.Repeat(layer, 100+len(layer))))
	}
	body["layers"] = list
	if subject != nil {
		body["subject"] = map[string]any{"mediaType": subject.mediaType, "digest": subject.digest, "size": len(subject.payload)}
	}
	return h.finish(m, name, body)
}

func (h *history) finish(m image, name string, body map[string]any) image {
	m.payload, _ = json.Marshal(body)
	m.digest = digest.FromBytes(m.payload).String()
	h.names[m.digest] = name
	return m
}

// pushed pushes an image to oss/app. Without a tag it is pushed by digest.
func (h *history) pushed(tag, name string, layers ...string) image {
	h.t.Helper()
	m := h.built(name, nil, layers...)
	h.put(tag, m)
	return m
}

func (h *history) put(tag string, m image) {
	h.t.Helper()
	if tag == "" {
		tag = m.digest
	}
	h.push(h.t, "oss/app", tag, m)
}

func (h *history) index(tag string, children ...image) image {
	h.t.Helper()
	var list []any
	for _, m := range children {
		list = append(list, map[string]any{"mediaType": m.mediaType, "digest": m.digest, "size": len(m.payload)})
	}
	m := h.finish(image{mediaType: ociIndex}, tag, map[string]any{"schemaVersion": 2, "mediaType": ociIndex, "manifests": list})
	h.put(tag, m)
	return m
}

func (h *history) pull(references ...string) {
	h.t.Helper()
	for _, reference := range references {
		if status, err := h.get("oss/app", reference); status != http.StatusOK {
			h.t.Fatalf("pull %s: %d, %v", reference, status, err)
		}
	}
}

func (h *history) delete(reference string) {
	h.t.Helper()
	if res, _, err := h.do("DELETE", "/v2/oss/app/manifests/"+reference, "", nil); err != nil || res.StatusCode != http.StatusAccepted {
		h.t.Fatalf("delete %s: %v, %v", reference, res, err)
	}
}

func cosignTag(m image) string { return strings.Replace(m.digest, ":", "-", 1) + ".sig" }

// play plays 160 days. Used is what has v, multi or fresh in its name.
func (h *history) play() {
	h.on(1)
	h.pushed("old", "old", "base", "old", "in another repository")
	old := h.pushed("old-signed", "old-signed", "base", "old-signed")
	h.put(cosignTag(old), h.built("cosign of old", nil, "signature of old"))
	h.put("", h.built("referrer of old", &old, "referrer of old"))
	v2 := h.pushed("v2", "v2", "base", "v2")
	h.put(cosignTag(v2), h.built("cosign of v2", nil, "signature of v2"))
	h.put("", h.built("referrer of v2", &v2, "referrer of v2"))
	v3 := h.pushed("v3", "v3", "v3")
	h.pushed("v4", "v4", "v4")
	shared := h.pushed("", "shared child", "shared child")
	h.index("multi", h.pushed("", "child of multi", "child of multi"), shared)
	h.index("old-multi", h.pushed("", "child of old-multi", "child of old-multi"), shared)
	child := h.pushed("", "pulled child", "pulled child")
	h.index("multi-by-child", child)
	h.pushed("retagged", "retagged", "retagged")
	h.pushed("moved", "before the move", "before the move")
	again := h.pushed("again", "again", "again")
	h.pushed("old-scanned", "old-scanned", "old-scanned")
	h.pushed("stable-1", "stable-1", "stable-1")
	h.pushed("old-used", "old-used", "old-used")
	h.push(h.t, "other/app", "old", h.built("other", nil, "base", "in another repository"))

	h.on(20)
	h.pull("old-used", "old-multi", again.digest)
	h.on(30)
	h.delete(again.digest)
	h.pushed("untagged", "again", "again")
	h.delete("untagged")
	h.on(40)
	h.put("again", again)

	h.on(150)
	h.pull("v2", v3.digest, "multi", child.digest)
	h.head(h.t, "oss/app", "v4")
	h.put("fresh-retagged", h.built("retagged", nil, "retagged"))
	h.pushed("moved", "after the move", "after the move")
	if _, _, err := h.do("GET", "/v2/oss/app/manifests/old-scanned", "", nil, "Accept", acceptAll, "User-Agent", "scanner/1"); err != nil {
		h.t.Fatal(err)
	}
	h.on(160)
}

// found are the items, as name and last use.
func (h *history) found(out string) (items []string, bytes int64) {
	h.t.Helper()
	var result unused.Result
	if err := json.Unmarshal([]byte(out), &result); err != nil {
		h.t.Fatalf("%v\n%s", err, out)
	}
	for _, item := range result.Items {
		name := item.Tag
		if item.Tag == "" || strings.HasPrefix(item.Tag, "sha256-") {
			name = h.names[item.Digest]
		}
		if !item.Manifest {
			name += " (tag)"
		}
		if !item.Used.IsZero() {
			name += ", used"
		}
		items = append(items, name)
	}
	slices.Sort(items)
	return items, result.Bytes
}

// blobBytes is the size of all blobs in storage.
func (h *history) blobBytes() (total int64) {
	h.t.Helper()
	err := filepath.WalkDir(filepath.Join(h.dir, "registry/docker/registry/v2/blobs"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		total += info.Size()
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return total
}

// What nobody has used for 90 days is found exactly, in a history of 160 days, and deleted;
// garbage-collect then frees the bytes that were announced.
func TestUnused(t *testing.T) {
	t.Parallel()
	s := newServer(t, settings{options: `count: {ignore_user_agents: ["scanner*"]}`})
	h := &history{s, map[string]string{}}
	h.on(0)
	h.start()
	h.play()
	list := []string{"unused", h.config, "--for", "90d", "--repository", "oss/**", "--keep-tags", "stable-*", "--json"}
	out, code := h.run(list...)
	if code != 0 {
		t.Fatalf("exit code %d\n%s", code, out)
	}
	items, bytes := h.found(out)
	want := []string{
		"again", "before the move", "child of old-multi", "cosign of old", "old", "old-multi, used", "old-scanned", "old-signed",
		"old-used, used", "referrer of old", "retagged (tag)",
	}
	if !slices.Equal(items, want) {
		t.Fatalf("unused are\n%q, want\n%q", items, want)
	}
	if out, code := h.run("unused", h.config, "--for", "90d"); code != 0 || !strings.Contains(out, "oss/app:old-multi   ") || !strings.Contains(out, "never used, pushed ") {
		t.Errorf("exit code %d\n%s", code, out)
	}
	for _, refused := range []struct {
		args []string
		why  string
	}{
		{[]string{"--for", "90d", "--delete"}, "--yes"},
		{[]string{"--for", "200d", "--delete", "--yes"}, "nothing was deleted: uses are known since"},
		{[]string{"--for", "1m"}, "such as 90d"},
		{[]string{"--for", "401d"}, "uses are kept for 400 days"},
		{[]string{}, "--for 90d"},
		{[]string{"--for", "90d", "--repository", "/x"}, "--repository"},
		{[]string{"--for", "90d", "--yes"}, "only for --delete"},
	} {
		if out, code := h.run(append([]string{"unused", h.config}, refused.args...)...); code == 0 || !strings.Contains(out, refused.why) {
			t.Errorf("%q: exit code %d, want an error about %s\n%s", refused.args, code, refused.why, out)
		}
	}

	if out, code := h.run(append(list, "--delete", "--yes")...); code != 0 {
		t.Fatalf("exit code %d\n%s", code, out)
	}
	h.waitDrained()
	if out, code := h.run(list...); code != 0 || !strings.Contains(out, `"items": []`) {
		t.Errorf("after the deletion: exit code %d\n%s", code, out)
	}
	h.checkRecorded()
	h.pull("v2", "v3", "v4", "multi", "multi-by-child", "fresh-retagged", "moved", "stable-1")
	h.stop()
	before := h.blobBytes()
	if out, err := h.collect(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if freed := before - h.blobBytes(); freed != bytes || freed == 0 {
		t.Errorf("%d bytes were freed, and %d announced", freed, bytes)
	}
	if out, code := h.run(list...); code == 0 || !strings.Contains(out, "not running") {
		t.Errorf("of a stopped registry: exit code %d\n%s", code, out)
	}
}

// checkRecorded checks that the layer records are those of the manifests in storage.
func (h *history) checkRecorded() {
	h.t.Helper()
	stored := map[string]bool{}
	entries, err := os.ReadDir(filepath.Join(h.dir, "registry/docker/registry/v2/repositories/oss/app/_manifests/revisions/sha256"))
	if err != nil {
		h.t.Fatal(err)
	}
	for _, entry := range entries {
		link, err := os.ReadFile(filepath.Join(h.dir, "registry/docker/registry/v2/repositories/oss/app/_manifests/revisions/sha256", entry.Name(), "link"))
		if err == nil {
			stored[h.names[string(link)]] = true
		}
	}
	recorded := map[string]bool{"multi": true, "multi-by-child": true} // indexes have no layers
	for _, r := range h.records(h.t, h.did, layerCollection) {
		_, hex, _ := strings.Cut(fmt.Sprint(r.Value["manifest"]), "/io.atcr.manifest/")
		recorded[h.names["sha256:"+hex]] = true
	}
	if !maps.Equal(stored, recorded) {
		h.t.Errorf("stored are %v, and there are records of %v", stored, recorded)
	}
}

// With Redis, what no registry has used is deleted, unless the uses of one are not known.
func TestUnusedWithRedis(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	s := newServer(t, settings{options: fmt.Sprintf("redis: {addrs: [%q]}", redis.Addr)})
	h := &history{s, map[string]string{}}
	h.on(0)
	h.start()
	eventually(t, "the uses are exchanged", 20*time.Second, func() bool {
		out, _ := h.run("unused", h.config, "--for", "90d")
		return !strings.Contains(out, "some uses are not known")
	})
	h.pushed("old", "old", "old")
	h.on(160)
	h.pushed("new", "new", "new")
	client, ids := redis.Client(), rediscounts.NewKeys("").IDs()
	another := rediscounts.Record{Owner: "run", Instance: "another", Host: "host-b"}.Encode()
	if err := client.HSet(t.Context(), ids, "another", another).Err(); err != nil {
		t.Fatal(err)
	}
	list := []string{"unused", h.config, "--for", "90d", "--delete", "--yes"}
	if out, code := h.run(list...); code == 0 || !strings.Contains(out, "nothing was deleted") || !strings.Contains(out, "another (host-b) has not sent its uses") || !strings.Contains(out, "tidings redis forget <config> another") {
		t.Errorf("without the uses of another registry: exit code %d\n%s", code, out)
	}
	if err := client.HDel(t.Context(), ids, "another").Err(); err != nil {
		t.Fatal(err)
	}
	if out, code := h.run(list...); code != 0 || !strings.Contains(out, "1 delete done") {
		t.Errorf("exit code %d\n%s", code, out)
	}
}
