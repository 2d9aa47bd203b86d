package collected

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

// begin starts a run that adds notes.
func begin(t *testing.T, dir string, notes ...Note) *Run {
	t.Helper()
	r, err := Begin(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range notes {
		if err := r.Add(n); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// expectTake calls Take and compares its results.
func expectTake(t *testing.T, dir string, want Taken, notes ...Note) {
	t.Helper()
	var got []Note
	all, err := Take(dir, func(n []Note) error { got = append(got, n...); return nil })
	if err != nil || all != want || !slices.Equal(got, notes) {
		t.Errorf("Take: got %v, %+v, %v; want %v, %+v", got, all, err, notes, want)
	}
}

var one, two, three = Note{"oss/app", "sha256:1"}, Note{"oss/app", "sha256:2"}, Note{"other", "sha256:3"}

func TestTake(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "collected")
	expectTake(t, dir, Taken{}) // the folder does not exist
	first := begin(t, dir, one, two)
	expectTake(t, dir, Taken{Running: 1})
	second := begin(t, dir, three)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	expectTake(t, dir, Taken{Notes: 2, Running: 1}, one, two)
	if err := second.Add(one); err != nil { // the run is still in progress
		t.Fatal(err)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	expectTake(t, dir, Taken{Notes: 2}, three, one)
	if err := begin(t, dir).Close(); err != nil { // a run that deleted nothing
		t.Fatal(err)
	}
	expectTake(t, dir, Taken{})
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("files left: %v, %v", left, err)
	}
}

// If take fails, the next Take returns the same notes.
func TestTakeFails(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "collected")
	if err := begin(t, dir, one).Close(); err != nil {
		t.Fatal(err)
	}
	failure := errors.New("disk full")
	if _, err := Take(dir, func([]Note) error { return failure }); !errors.Is(err, failure) {
		t.Errorf("got %v", err)
	}
	expectTake(t, dir, Taken{Notes: 1}, one)
	expectTake(t, dir, Taken{})
}

// A run that was killed has released its lock, and its last line may be incomplete.
func TestTakeAfterKill(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "collected")
	r := begin(t, dir, one, two)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(r.path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(r.path); err != nil {
		t.Fatal(err)
	}
	for cut := range len(content) {
		path := filepath.Join(dir, fmt.Sprint("cut", cut, suffix))
		if err := os.WriteFile(path, content[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		var got []Note
		if _, err := Take(dir, func(n []Note) error { got = n; return nil }); err != nil {
			t.Fatal(err)
		}
		whole := []Note{one, two}[:len(got)]
		if !slices.Equal(got, whole) {
			t.Errorf("cut to %d bytes: %v", cut, got)
		}
		if last := cut == len(content)-1; len(got) == 2 && !last || len(got) == 0 && cut > len(content)/2 {
			t.Errorf("cut to %d of %d bytes: %d notes", cut, len(content), len(got))
		}
	}
}

func TestBeginWithoutDataFolder(t *testing.T) {
	t.Parallel()
	if _, err := Begin(filepath.Join(t.TempDir(), "none", "collected")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want os.ErrNotExist", err)
	}
}

// The files that root creates belong to the owner of the data folder.
func TestOwner(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root: only root can change the owner of a file")
	}
	data := t.TempDir()
	if err := os.Chown(data, 1234, 5678); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(data, "collected")
	r := begin(t, dir, one)
	defer r.Close()
	for _, path := range []string{dir, r.path} {
		if got := owner(t, path); got != "1234:5678" {
			t.Errorf("%s belongs to %s", path, got)
		}
	}
}

func owner(t *testing.T, path string) string {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	stat := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%d:%d", stat.Uid, stat.Gid)
}
