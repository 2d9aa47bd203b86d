package private

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Secrets that a container platform mounts for all to read are accepted, and those that other
// users can change, or that are empty, are refused.
func TestModes(t *testing.T) {
	t.Parallel()
	for mode, want := range map[fs.FileMode]struct{ open, refused bool }{
		0o600: {false, false},
		0o400: {false, false},
		0o440: {false, false}, // Kubernetes with fsGroup
		0o444: {true, false},  // Docker Swarm
		0o644: {true, false},  // Kubernetes
		0o620: {false, true},
		0o602: {false, true},
		0o666: {true, true},
	} {
		path := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(path, []byte("hunter2"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if got := OpenToAll(path); got != want.open {
			t.Errorf("mode %04o: OpenToAll is %v", mode, got)
		}
		content, err := ReadFile(path)
		if refused := err != nil && strings.Contains(err.Error(), "chmod 600 "+path); refused != want.refused {
			t.Errorf("mode %04o: %v", mode, err)
		}
		if !want.refused && string(content) != "hunter2" {
			t.Errorf("mode %04o: read %q, %v", mode, content, err)
		}
	}
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte(" \n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFile(empty); !errors.Is(err, ErrEmpty) || err.Error() != empty+" is empty" {
		t.Errorf("an empty file: %v", err)
	}
	if OpenToAll(filepath.Join(t.TempDir(), "missing")) {
		t.Error("a missing file is open")
	}
}
