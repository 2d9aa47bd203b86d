package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/tidings-dev/tidings/middleware/collected"
)

func TestManifestAt(t *testing.T) {
	t.Parallel()
	const root = "/docker/registry/v2/repositories/"
	hex := digest.FromString("x").Encoded()
	for path, want := range map[string]collected.Note{
		root + "oss/app/_manifests/revisions/sha256/" + hex:                                 {Repository: "oss/app", Digest: "sha256:" + hex},
		root + "app/_manifests/revisions/sha512/" + digest.SHA512.FromString("x").Encoded(): {Repository: "app", Digest: digest.SHA512.FromString("x").String()},
		root + "oss/app/_manifests/revisions/sha256/" + hex + "/link":                       {},
		root + "oss/app/_manifests/revisions/sha256":                                        {},
		root + "oss/app/_manifests/tags/v1/index/sha256/" + hex:                             {},
		root + "oss/app/_layers/sha256/" + hex:                                              {},
		"/docker/registry/v2/blobs/sha256/" + hex[:2] + "/" + hex:                           {},
	} {
		if got, ok := manifestAt(path); ok != (want != collected.Note{}) || ok && got != want {
			t.Errorf("%s: %v, %v; want %v", path, got, ok, want)
		}
	}
}

// untag pushes two images under one tag, so that the first is untagged.
func (s *server) untag(repository string) (untagged, tagged image) {
	s.t.Helper()
	untagged, tagged = newImage(2), newImage(1)
	s.push(s.t, repository, "v1", untagged)
	s.push(s.t, repository, "v1", tagged)
	return untagged, tagged
}

func (s *server) collect(args ...string) (out string, err error) {
	s.t.Helper()
	b, err := s.command(append([]string{"garbage-collect", s.config}, args...)...).CombinedOutput()
	return string(b), err
}

func (s *server) checkLayers(want int) {
	s.t.Helper()
	s.checkUnique(s.t, layerCollection, want, func(r record) string { return fmt.Sprint(r.Value["manifest"], r.Value["digest"]) })
}

func (s *server) notes() []os.DirEntry {
	entries, _ := os.ReadDir(filepath.Join(s.dir, "tidings", "collected"))
	return entries
}

// garbage-collect deletes manifests while the registry is stopped or running; the
// next start deletes the records of these manifests only.
func TestGarbageCollect(t *testing.T) {
	t.Parallel()
	for _, running := range []bool{false, true} {
		t.Run(fmt.Sprint("running ", running), func(t *testing.T) {
			t.Parallel()
			s := newServer(t, settings{})
			s.start()
			untagged, tagged := s.untag("oss/app")
			other := newImage(3)
			s.push(t, "oss/deep/er", "v1", other)
			s.waitDrained()
			s.checkLayers(2 + 1 + 3)
			if !running {
				s.stop()
			}
			out, err := s.collect("--delete-untagged")
			if err != nil || !strings.Contains(out, "manifest eligible for deletion: {oss/app "+untagged.digest) || !strings.Contains(out, "1 manifests eligible") {
				t.Fatalf("garbage-collect: %v\n%s", err, out)
			}
			if s.exists("oss/app", untagged) || !s.exists("oss/app", tagged) || !s.exists("oss/deep/er", other) {
				t.Fatalf("garbage-collect deleted something else:\n%s", out)
			}
			if running {
				s.stop()
			}
			s.start()
			s.waitDrained()
			s.checkLayers(1 + 3)
			s.verifyRepo()
			if left := s.notes(); len(left) != 0 {
				t.Errorf("unexpected files: %v", left)
			}
			s.stop()
		})
	}
}

// A recorded manifest that is still in storage keeps its records: garbage-collect was
// killed before the delete, or the manifest was pushed again.
func TestGarbageCollectKilled(t *testing.T) {
	t.Parallel()
	s := newServer(t, settings{})
	s.start()
	untagged, tagged := s.untag("oss/app")
	s.waitDrained()
	s.stop()
	run, err := collected.Begin(filepath.Join(s.dir, "tidings", "collected"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []image{untagged, tagged} {
		if err := run.Add(collected.Note{Repository: "oss/app", Digest: m.digest}); err != nil {
			t.Fatal(err)
		}
	}
	run.Close()
	s.start()
	s.waitDrained()
	s.checkLayers(3)
	if left := s.notes(); len(left) != 0 {
		t.Errorf("unexpected files: %v", left)
	}
	s.stop()
}

// Nothing is deleted if the deletions cannot be recorded.
func TestGarbageCollectWithoutDataFolder(t *testing.T) {
	t.Parallel()
	s := newServer(t, settings{})
	s.start()
	untagged, _ := s.untag("oss/app")
	s.waitDrained()
	s.stop()
	data := filepath.Join(s.dir, "tidings")
	if err := os.Rename(data, data+".away"); err != nil {
		t.Fatal(err)
	}
	out, err := s.collect("-m")
	if err == nil || !strings.Contains(out, "nothing was deleted") || !strings.Contains(out, data) || strings.Contains(out, "Usage:") {
		t.Errorf("hold serve exited with %v:\n%s", err, out)
	}
	if !s.exists("oss/app", untagged) {
		t.Error("the manifest was deleted")
	}
	if _, err := os.Stat(data); err == nil {
		t.Error("a data folder was created")
	}
}

// Without -m, in a dry run, and with Tidings disabled the command is distribution's
// and records nothing.
func TestGarbageCollectUpstream(t *testing.T) {
	t.Parallel()
	s := newServer(t, settings{})
	s.start()
	untagged, _ := s.untag("oss/app")
	s.waitDrained()
	s.stop()
	for _, args := range [][]string{{}, {"--dry-run", "-m"}} {
		if out, err := s.collect(args...); err != nil || !strings.Contains(out, "blobs marked") {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
		if !s.exists("oss/app", untagged) {
			t.Fatalf("%v: the manifest is deleted", args)
		}
	}
	s.edit("        data: ", "        enabled: false\n        data: ")
	if out, err := s.collect("-m", "-q"); err != nil || strings.Contains(out, "eligible") {
		t.Errorf("disabled: %v\n%s", err, out)
	}
	if s.exists("oss/app", untagged) {
		t.Error("disabled: the manifest is still there")
	}
	if left := s.notes(); left != nil {
		t.Errorf("notes: %v", left)
	}
}
