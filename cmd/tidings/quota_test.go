package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/usage"
)

// The command quota lists the owners of a stopped registry, and finds and corrects what a
// recount does not confirm.
func TestQuotaCommand(t *testing.T) {
	t.Parallel()
	s := newServer(t, settings{options: defaultOptions + "\nquota: {tiers: {small: {limit: 1kB}}, default: small}"})
	s.start()
	m := newImage(2)
	s.push(t, "oss/app", "v1", m)
	s.waitDrained()
	if out, code := s.run("quota", s.config); code != 1 || !strings.Contains(out, "stop") {
		t.Errorf("while the server runs: exit code %d\n%s", code, out)
	}
	s.stop()
	owner, bytes := unescaped(s.did), 0
	for _, layer := range m.blobs[1:] {
		bytes += len(layer)
	}
	want := func(what string, code int, lines []string, args ...string) {
		t.Helper()
		out, got := s.run(append(append([]string{"quota"}, args...), s.config)...)
		var found []string
		for line := range strings.Lines(out) {
			found = append(found, strings.Join(strings.Fields(line), " "))
		}
		if got != code || strings.Join(found, "\n") != strings.Join(lines, "\n") {
			t.Errorf("%s: exit code %d, want %d\n%s\nwant\n%s", what, got, code, out, strings.Join(lines, "\n"))
		}
	}
	const head = "OWNER LAYERS SIZE LIMIT TIER"
	row := fmt.Sprintf("%s 2 %dB 1kB small", owner, bytes)
	want("all owners", 0, []string{head, row})
	want("one owner", 0, []string{head, row}, "--owner", owner)
	want("an owner without layers", 0, []string{head, "did:plc:unknown 0 0B 1kB small"}, "--owner", "did:plc:unknown")
	want("its JSON", 0, []string{`{"owner":"did:plc:unknown","uniqueBlobs":0,"totalSize":0,"limit":1000,"tier":"small"}`}, "--owner", "did:plc:unknown", "--json")
	want("no DID", 1, []string{`Error: --owner: "foo" is no DID, such as did:plc:ewvi7nxzyoun6zhxrhs64oiz`}, "--owner", "foo")
	want("JSON", 0, []string{fmt.Sprintf(`{"owner":%q,"uniqueBlobs":2,"totalSize":%d,"limit":1000,"tier":"small"}`, owner, bytes)}, "--json")
	want("a correct recount", 0, []string{head, row}, "--recompute")
	want("--dry-run alone", 1, []string{"Error: --dry-run is only for --recompute"}, "--dry-run")

	manifest, layer := digest.FromString("manifest").String(), digest.FromString("layer").String()
	s.countMore(owner, manifest, usage.Layer{Digest: layer, Size: 5})
	wrong := fmt.Sprintf("%s 3 %dB 1kB small", owner, bytes+5)
	differences := []string{
		owner + " " + layer + ": the layer counts, but should not",
		owner + " " + manifest + ": the manifest counts, but should not",
		fmt.Sprintf("%s: the total is 3 layers of %d bytes, but should be 2 layers of %d bytes", owner, bytes+5, bytes),
	}
	want("a wrong total", 0, []string{head, wrong})
	want("only printed", 2, append(append([]string{}, differences...), head, wrong, "Error: the stores differ: 3 differences"), "--recompute", "--dry-run")
	want("corrected", 2, append(append([]string{}, differences...), head, row, "Error: the stores differ: 3 differences corrected"), "--recompute")
	want("after the correction", 0, []string{head, row}, "--recompute")
}

// countMore counts a manifest of an owner in the state of a stopped server that has no
// records.
func (s *server) countMore(owner, manifest string, layers ...usage.Layer) {
	s.t.Helper()
	db, err := state.Open(state.Config{Dir: filepath.Join(s.dir, "tidings", "state")})
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.Close()
	var b state.Batch
	if _, err := usage.New(state.OnPebble(db)).Add(&b, owner, manifest, layers); err != nil {
		s.t.Fatal(err)
	}
	if err := state.OnPebble(db).Commit(&b, state.Sync); err != nil {
		s.t.Fatal(err)
	}
}
