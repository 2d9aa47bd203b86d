package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// newRegistry creates a registry that writes to an account on another PDS.
func newRegistry(t *testing.T, a *testAccount) *server {
	t.Helper()
	s := &server{t: t, dir: t.TempDir(), did: strings.ReplaceAll(a.did, "%", "%25")}
	addr := freeAddr(t)
	s.client, s.config = newClient(addr), filepath.Join(s.dir, "config.yml")
	write(t, filepath.Join(s.dir, "password"), a.password)
	write(t, filepath.Join(s.dir, "token"), "let me see everything 0123456789")
	write(t, s.config, fmt.Sprintf(`version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %[1]s/registry}, delete: {enabled: true}}
http: {addr: %[2]q, host: "http://%[2]s", draintimeout: 10s}
middleware:
  repository:
    - name: tidings
      options:
        data: %[1]s/tidings
        reserve: 1MiB
        public: ["oss/**"]
        account: {service: %[3]q, identifier: %[4]q, password_file: %[1]s/password}
        announce: {tags: ["*"], collect: 0, cooldown: 0s, daily_limit: 0}
        stats: {records: off}
        api: {token_file: %[1]s/token}
`, s.dir, addr, a.service, a.did))
	return s
}

// Two registries publish to one hold that runs alone. Neither removes what the other has
// written: not at a restart, and not after its data folder is lost.
func TestSharedHold(t *testing.T) {
	t.Parallel()
	a := newTestAccount(t)
	defer a.stop()
	pds := newClient(strings.TrimPrefix(a.service, "http://"))
	did := strings.ReplaceAll(a.did, "%", "%25")
	one, two := newRegistry(t, a), newRegistry(t, a)
	both := newImage(1)
	one.start()
	two.start()
	for i, s := range []*server{one, two} {
		for layers := 1; layers <= 3; layers++ {
			s.push(t, "oss/app", fmt.Sprintf("v1.%d.%d", i, layers), newImage(layers))
		}
		s.push(t, "oss/both", "v1", both)
		s.waitDrained()
	}
	keys := func(collection string) []string {
		var all []string
		for _, r := range pds.records(t, did, collection) {
			all = append(all, r.URI)
		}
		slices.Sort(all)
		return all
	}
	layers, posts := keys("io.atcr.hold.layer"), keys("app.bsky.feed.post")
	if len(layers) != 14 || len(posts) != 8 {
		t.Fatalf("%d layer records and %d posts, want 14 and 8", len(layers), len(posts))
	}
	check := func(after string, layers, posts int) {
		t.Helper()
		time.Sleep(500 * time.Millisecond) // a reconciliation would begin
		one.waitDrained()
		if l, p := len(keys("io.atcr.hold.layer")), len(keys("app.bsky.feed.post")); l != layers || p != posts {
			t.Errorf("after %s: %d layer records and %d posts, want %d and %d\n%s", after, l, p, layers, posts, one.log)
		}
	}

	one.stop()
	two.push(t, "oss/app", "v2", newImage(1))
	two.waitDrained()
	one.start()
	check("a restart", 15, 9)

	one.stop()
	if err := os.RemoveAll(filepath.Join(one.dir, "tidings")); err != nil {
		t.Fatal(err)
	}
	one.start()
	check("the loss of a data folder", 15, 9)
	image := newImage(2)
	one.push(t, "oss/app", "v3", image)
	one.waitDrained()
	check("a push", 17, 10)
	res, _, err := one.do("DELETE", "/v2/oss/app/manifests/"+image.digest, "", nil)
	if err != nil || res.StatusCode != http.StatusAccepted {
		t.Fatalf("delete: %v, %v", res, err)
	}
	one.waitDrained()
	check("a delete", 15, 10)
}
