package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/backfill"
	"github.com/tidings-dev/tidings/notifier/reconcile"
)

// backfillLong is set to the number of manifests of the long run, such as 10000.
const backfillLong = "TIDINGS_BACKFILL"

// A storedImage is a manifest that was pushed before Tidings was installed.
type storedImage struct {
	repository, digest string
	layers             []string
}

// storeImages writes manifests with two layers each into the registry's storage, as if they
// had been pushed. All have tags except for the first.
func (s *server) storeImages(manifests, repositories, untagged int) []storedImage {
	s.t.Helper()
	root := filepath.Join(s.dir, "registry", "docker", "registry", "v2")
	put := func(path, content string) {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			s.t.Fatal(err)
		}
		write(s.t, path, content)
	}
	var all []storedImage
	for i := range manifests {
		m := storedImage{repository: fmt.Sprintf("oss/app%d", i%repositories)}
		layers := []map[string]any{}
		for l := range 2 {
			d := digest.FromString(fmt.Sprint("layer ", i, " ", l)).String()
			m.layers = append(m.layers, d)
			layers = append(layers, map[string]any{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": d, "size": 100 + l})
		}
		payload, err := json.Marshal(map[string]any{
			"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": layers,
			"config": map[string]any{"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest.FromString("config").String(), "size": 6},
		})
		if err != nil {
			s.t.Fatal(err)
		}
		d := digest.FromBytes(payload)
		m.digest = d.String()
		put(filepath.Join("blobs/sha256", d.Encoded()[:2], d.Encoded(), "data"), string(payload))
		put(filepath.Join("repositories", m.repository, "_manifests/revisions/sha256", d.Encoded(), "link"), m.digest)
		put(filepath.Join("repositories", m.repository, "_layers/sha256/none"), "")
		if i >= untagged {
			tag := filepath.Join("repositories", m.repository, "_manifests/tags", fmt.Sprint("v", i))
			put(filepath.Join(tag, "current/link"), m.digest)
			put(filepath.Join(tag, "index/sha256", d.Encoded(), "link"), m.digest)
		}
		all = append(all, m)
	}
	return all
}

// A registry with images that were pushed before Tidings was installed gets their records,
// each once, however often it is killed meanwhile. Nothing is posted or counted. Manifests
// that are deleted behind the registry's back are exactly those that reconcile and gc find.
func TestBackfill(t *testing.T) {
	t.Parallel()
	manifests, repositories, kills, deleted := 60, 6, 2, 7
	if n, err := strconv.Atoi(os.Getenv(backfillLong)); err == nil {
		manifests, repositories, kills, deleted = n, max(1, n/50), 10, n/20
	}
	s := newServer(t, settings{})
	stored := s.storeImages(manifests, repositories, deleted/2)
	s.start()
	if out, code := s.run("backfill", "--dry-run", s.config); code != 0 || !strings.Contains(out, fmt.Sprintf("%d manifests without records", manifests)) {
		t.Fatalf("dry run: exit code %d\n%s", code, out)
	}
	began := time.Now()
	for range kills {
		cmd := s.command("backfill", s.config)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.IntN(200+manifests/10)) * time.Millisecond)
		s.kill()
		_ = cmd.Wait()
		s.start()
	}
	out, code := s.run("backfill", "--json", s.config)
	var job backfill.Job
	if err := json.Unmarshal([]byte(out[max(0, strings.Index(out, "{")):]), &job); code != 0 || err != nil || job.Phase != backfill.Done {
		t.Fatalf("exit code %d, %v\n%s", code, err, out)
	}
	t.Logf("%d manifests in %s, killed %d times", manifests, time.Since(began).Round(time.Second), kills)
	s.waitDrained()
	s.checkBackfilled(stored)

	s.stop()
	if out, code := s.run("reconcile", s.config); code != 0 {
		t.Fatalf("reconcile: exit code %d\n%s", code, out)
	}
	tagged := stored[deleted/2:]
	rand.Shuffle(len(tagged), func(i, j int) { tagged[i], tagged[j] = tagged[j], tagged[i] })
	gone, left := stored[:deleted], stored[deleted:]
	s.deleteBehind(gone)
	s.checkFound("reconcile", 2, gone, func(line []byte) (storedImage, bool) {
		var d reconcile.Difference
		err := json.Unmarshal(line, &d)
		return storedImage{repository: d.Repository, digest: d.Digest}, err == nil && d.Kind == reconcile.Stale
	})
	s.start()
	claim := func(line []byte) (storedImage, bool) {
		var c reconcile.Claim
		err := json.Unmarshal(line, &c)
		return storedImage{repository: c.Repository, digest: c.Digest}, err == nil && c.Records == 2
	}
	s.checkFound("gc", 0, gone, claim)
	s.checkBackfilled(stored) // it has only listed them
	s.checkFound("gc", 0, gone, claim, "--delete")
	s.waitDrained()
	s.checkBackfilled(left)
	s.checkFound("gc", 0, nil, claim)
	s.stop()
	if out, code := s.run("reconcile", s.config); code != 0 {
		t.Errorf("reconcile at the end: exit code %d\n%s", code, out)
	}
}

// checkBackfilled checks that the account has exactly the records of images, and that
// nothing was posted or counted.
func (s *server) checkBackfilled(images []storedImage) {
	s.t.Helper()
	want := map[string]int{}
	for _, m := range images {
		for _, layer := range m.layers {
			want[m.digest+" "+layer]++
		}
	}
	for _, r := range s.records(s.t, s.did, layerCollection) {
		_, manifest, _ := lexicon.ParseManifestURI(r.Value["manifest"].(string))
		want[manifest+" "+r.Value["digest"].(string)]--
	}
	for id, n := range want {
		if n != 0 {
			s.t.Errorf("%s: %d records are missing", id, n)
		}
	}
	if posts := s.records(s.t, s.did, "app.bsky.feed.post"); len(posts) != 0 {
		s.t.Errorf("%d posts", len(posts))
	}
	if counted := s.repositories(s.token()...); len(counted) != 0 {
		s.t.Errorf("%d repositories are counted", len(counted))
	}
}

// deleteBehind removes the tags of images from storage, and deletes all manifests without tags
// with the garbage-collect of a registry without Tidings.
func (s *server) deleteBehind(images []storedImage) {
	s.t.Helper()
	for _, m := range images {
		root := filepath.Join(s.dir, "registry/docker/registry/v2/repositories", m.repository, "_manifests")
		hex := strings.TrimPrefix(m.digest, "sha256:")
		tags, err := filepath.Glob(filepath.Join(root, "tags/*/index/sha256", hex))
		if err != nil {
			s.t.Fatal(err)
		}
		for _, tag := range tags {
			if err := os.RemoveAll(filepath.Dir(filepath.Dir(filepath.Dir(tag)))); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	upstream := filepath.Join(s.t.TempDir(), "upstream.yml")
	write(s.t, upstream, fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage:\n  filesystem: {rootdirectory: %s/registry}\n  delete: {enabled: true}\n", s.dir))
	if out, err := s.command("garbage-collect", "--delete-untagged", "--quiet", upstream).CombinedOutput(); err != nil {
		s.t.Fatalf("garbage-collect: %v\n%s", err, out)
	}
}

// checkFound runs a command with --json and checks that it finds exactly some images.
func (s *server) checkFound(command string, wantCode int, want []storedImage, parse func(line []byte) (storedImage, bool), args ...string) {
	s.t.Helper()
	cmd := s.command(slices.Concat([]string{command, "--json"}, args, []string{s.config})...)
	out, _ := cmd.Output()
	if code := cmd.ProcessState.ExitCode(); code != wantCode {
		s.t.Errorf("%s: exit code %d\n%s", command, code, out)
	}
	left := map[string]bool{}
	for _, m := range want {
		left[m.repository+"@"+m.digest] = true
	}
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		if line == "" {
			continue
		}
		m, ok := parse([]byte(line))
		if id := m.repository + "@" + m.digest; !ok || !left[id] {
			s.t.Errorf("%s found %s", command, line)
		} else {
			delete(left, id)
		}
	}
	if len(left) > 0 {
		s.t.Errorf("%s did not find %d manifests", command, len(left))
	}
}

// With an account the budget paces a backfill: it leaves points for pushes, and says when it
// will end.
func TestBackfillBudget(t *testing.T) {
	t.Parallel()
	s := newAccountServer(t, fakeHandle)
	s.edit("plc: ", "budget: {hour: 200, day: 100000}, plc: ")
	stored := s.storeImages(40, 4, 20) // 80 creates cost 240 points
	s.start()
	out, code := s.run("backfill", "--dry-run", s.config)
	if code != 0 || !strings.Contains(out, "They need 80 records, which cost 240 points: about ") {
		t.Fatalf("dry run: exit code %d\n%s", code, out)
	}
	cmd := s.command("backfill", s.config)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	var status string
	s.until(t, "the backfill waits for points", func() bool {
		status, _ = s.run("backfill", "--status", s.config)
		return strings.Contains(status, "no points to spare until")
	})
	s.waitDrained()
	const most = 200 * 70 / 100 / 3
	if n := s.pds.count(layerCollection); n > most || n < most-2 {
		t.Errorf("%d records are written, want %d at most", n, most)
	}
	s.push(t, "oss/new", "v1", newImage(2)) // there are points for it
	s.waitDrained()
	if n := s.pds.count(layerCollection); n > most+2 || n < most {
		t.Errorf("%d records after a push", n)
	}
	const nothing = "No backfill is running, so there is nothing to stop."
	if out, code := s.run("backfill", "--stop", s.config); code != 0 || !strings.Contains(out, "Stopped") || strings.Contains(out, nothing) {
		t.Errorf("stop: exit code %d\n%s", code, out)
	}
	if out, code := s.run("backfill", "--stop", s.config); code != 0 || !strings.Contains(out, nothing) {
		t.Errorf("stop again: exit code %d\n%s", code, out)
	}
	s.stop()
	out, code = s.run("reconcile", "--json", s.config)
	if missing := strings.Count(out, `"kind":"missing"`); code != 2 || missing < len(stored)-most/2 || missing > len(stored)-most/2+1 || strings.Contains(out, `"kind":"record"`) {
		t.Errorf("reconcile: exit code %d, %d manifests missing\n%s", code, missing, out)
	}
}

// A purge removes what was published of a repository, and nothing of it is published until
// the next push.
func TestPurge(t *testing.T) {
	t.Parallel()
	s := newServer(t, settings{})
	s.start()
	shared, own := newImage(1), newImage(2)
	s.push(t, "oss/app", "v1", own)
	s.push(t, "oss/app", "v2", shared)
	s.push(t, "oss/other", "v2", shared)
	s.waitDrained()
	s.until(t, "the images are announced", func() bool { return len(s.records(t, s.did, "app.bsky.feed.post")) == 3 })
	if out, code := s.run("purge", s.config, "oss/app"); code == 0 || !strings.Contains(out, "Purge oss/app: 2 records of 2 manifests, 2 posts") {
		t.Errorf("without an answer: exit code %d\n%s", code, out)
	}
	if out, code := s.run("purge", s.config, "oss/typo"); code == 0 || !strings.Contains(out, "Nothing is published of oss/typo. Purge it anyway") {
		t.Errorf("of a repository without images: exit code %d\n%s", code, out)
	}
	if out, code := s.run("purge", "--yes", s.config, "oss/typo"); code != 0 || !strings.Contains(out, "Nothing was published of oss/typo. ") {
		t.Errorf("of a repository without images: exit code %d\n%s", code, out)
	}
	if out, code := s.run("purge", "--yes", s.config, "oss/app"); code != 0 || !strings.Contains(out, "Purging oss/app: 2 records of 2 manifests, 2 posts") {
		t.Fatalf("exit code %d\n%s", code, out)
	}
	s.waitDrained()
	purged := func() bool {
		return len(s.records(t, s.did, layerCollection)) == 1 && len(s.records(t, s.did, "app.bsky.feed.post")) == 1
	}
	s.until(t, "only the other repository's records and post are left", purged)
	if !s.exists("oss/app", own) {
		t.Error("the image is gone")
	}
	if out, code := s.run("backfill", s.config); code != 0 || !strings.Contains(out, " 0 manifests recorded") || !strings.Contains(out, "\n1 purged repository left out until the next push.\n") {
		t.Errorf("backfill: exit code %d\n%s", code, out)
	}
	s.stop()
	s.start()
	s.waitDrained()
	if !purged() {
		t.Error("a restart publishes it again")
	}
	s.push(t, "oss/app", "v3", newImage(3))
	s.waitDrained()
	if n := len(s.records(t, s.did, layerCollection)); n != 4 {
		t.Errorf("%d records after the next push, want 4", n)
	}
	if out, code := s.run("backfill", s.config); code != 0 || !strings.Contains(out, " 2 manifests recorded") || strings.Contains(out, "left out") {
		t.Errorf("backfill after the next push: exit code %d\n%s", code, out)
	}
}

func TestBackfillRequestText(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		request backfill.Request
		want    string
	}{
		{backfill.Request{}, "all public repositories"},
		{backfill.Request{Repository: "oss/**", Rate: 1, DryRun: true}, "public repositories matching oss/**, 1 manifest a second, dry run"},
		{backfill.Request{Rate: 2.5}, "all public repositories, 2.5 manifests a second"},
	} {
		if got := requestText(&tc.request); got != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
	}
}
