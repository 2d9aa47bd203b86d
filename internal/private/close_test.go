package private

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestClose(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	mode := func(name string) os.FileMode {
		t.Helper()
		info, err := os.Stat(in(name))
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode().Perm()
	}
	for _, folder := range []string{"state/inner", "other"} {
		if err := os.MkdirAll(in(folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, perm := range map[string]os.FileMode{"state/a": 0o644, "state/inner/b": 0o666, "state/inner/closed": 0o400, "file": 0o640, "other/c": 0o644} {
		if err := os.WriteFile(in(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(in(name), perm); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"state/link": in("other/c"), "moved": in("state")} {
		if err := os.Symlink(to, in(name)); err != nil {
			t.Fatal(err)
		}
	}
	opened, err := Close(in("moved"), in("file"), in("missing"))
	want := []string{in("file"), in("state"), in("state/a"), in("state/inner"), in("state/inner/b")}
	if slices.Sort(opened); err != nil || !slices.Equal(opened, want) {
		t.Errorf("got %q, %v, want %q", opened, err, want)
	}
	for name, want := range map[string]os.FileMode{
		"state": 0o700, "state/inner": 0o700, "state/a": 0o600, "state/inner/b": 0o600, "state/inner/closed": 0o400, "file": 0o600,
		"other": 0o755, "other/c": 0o644,
	} {
		if got := mode(name); got != want {
			t.Errorf("%s has mode %04o, want %04o", name, got, want)
		}
	}
	if opened, err := Close(in("moved"), in("file")); err != nil || len(opened) > 0 {
		t.Errorf("second Close: %q, %v", opened, err)
	}
}
