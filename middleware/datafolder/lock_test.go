package datafolder

import (
	"os"
	"path/filepath"
	"testing"
)

// An instance is the same for successive processes in one folder, also after a rename,
// and another one for a copy of the folder.
func TestInstance(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	instance := func(name string) string {
		t.Helper()
		path := filepath.Join(dir, name, "lock")
		unlock, err := Lock(path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Instance(path)
		if err != nil || got == "" {
			t.Fatalf("%q, %v", got, err)
		}
		if err := unlock(); err != nil {
			t.Fatal(err)
		}
		return got
	}
	first := instance("a")
	if again := instance("a"); again != first {
		t.Errorf("the same folder is %q and then %q", first, again)
	}
	if err := os.CopyFS(filepath.Join(dir, "b"), os.DirFS(filepath.Join(dir, "a"))); err != nil {
		t.Fatal(err)
	}
	if copied := instance("b"); copied == first {
		t.Errorf("a copy of the folder is also %q", copied)
	}
	if err := os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "c")); err != nil {
		t.Fatal(err)
	}
	if moved := instance("c"); moved != first {
		t.Errorf("the renamed folder is %q, want %q", moved, first)
	}
	if _, err := Instance(filepath.Join(dir, "none")); err == nil {
		t.Error("a missing lock file: no error")
	}
}
