package backup

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// source is a folder whose files have different times of modification.
func source(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "source")
	for name, content := range files {
		write(t, filepath.Join(dir, name), content)
	}
	return dir
}

// restored returns the contents of the files of a backup.
func restored(t *testing.T, dir string) map[string]string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "restored")
	if _, _, err := Restore(t.Context(), dir, to, nil); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	err := filepath.WalkDir(to, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		rel, _ := filepath.Rel(to, path)
		files[rel] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func same(t *testing.T, got, want map[string]string) {
	t.Helper()
	for name, content := range want {
		if got[name] != content {
			t.Errorf("%s has %q, want %q", name, got[name], content)
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A second backup keeps what has not changed, and links or copies the rest.
func TestIncremental(t *testing.T) {
	t.Parallel()
	files := map[string]string{"hold/1.sst": "table 1", "hold/a/x": "in a folder", "hold/a.b": "sorted before a/x", "key": "the key"}
	from, dir := source(t, files), filepath.Join(t.TempDir(), "backup")
	first, err := Write(t.Context(), Config{From: from, Dir: dir, Header: Header{Created: time.Now(), Keys: true}})
	if err != nil || first.Files != 4 || first.Linked != 4 || first.Kept != 0 {
		t.Fatalf("got %+v, %v", first, err)
	}
	same(t, restored(t, dir), files)
	if err := os.Remove(filepath.Join(from, "hold/a.b")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(from, "key")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(from, "key"), "new key")
	write(t, filepath.Join(from, "hold/2.sst"), "table 2")
	files = map[string]string{"hold/1.sst": "table 1", "hold/a/x": "in a folder", "hold/2.sst": "table 2", "key": "new key"}
	second, err := Write(t.Context(), Config{From: from, Dir: dir})
	if err != nil || second.Files != 4 || second.Kept != 2 || second.Linked != 2 || second.KeptBytes != 18 {
		t.Errorf("got %+v, %v", second, err)
	}
	same(t, restored(t, dir), files)
	if left, _ := filepath.Glob(dir + ".*"); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

// otherFileSystem returns a folder on another file system than path.
func otherFileSystem(t *testing.T, path string) string {
	t.Helper()
	for _, place := range []string{"/dev/shm", "/var/tmp", "."} {
		if d := device(place); d == 0 || d == device(path) {
			continue
		}
		if dir, err := os.MkdirTemp(place, "tidings-backup-"); err == nil {
			t.Cleanup(func() { os.RemoveAll(dir) })
			return dir
		}
	}
	t.Skip("needs two file systems: set TMPDIR to a folder on another one")
	return ""
}

// On another file system a backup copies files, once, with their times of modification.
func TestOtherFileSystem(t *testing.T) {
	t.Parallel()
	files := map[string]string{"hold/1.sst": "table 1", "hold/blobs/x": strings.Repeat("b", step+1), "key": "the key"}
	from := source(t, files)
	parent := otherFileSystem(t, from)
	dir := filepath.Join(parent, "backup")
	first, err := Write(t.Context(), Config{From: from, Dir: dir})
	if err != nil || first.Files != 3 || first.Copied != 3 || first.CopiedBytes != first.Bytes || first.Linked != 0 {
		t.Fatalf("got %+v, %v", first, err)
	}
	same(t, restored(t, dir), files)
	// The source can be changed in place without changing the backup.
	path := filepath.Join(from, "key")
	write(t, path, "new key")
	same(t, restored(t, dir), files)
	later := time.Now().Add(time.Second)
	if err := os.Chtimes(path, later, later); err != nil {
		t.Fatal(err)
	}
	files["key"] = "new key"
	second, err := Write(t.Context(), Config{From: from, Dir: dir})
	if err != nil || second.Kept != 2 || second.Copied != 1 || second.CopiedBytes != 7 || second.Linked != 0 {
		t.Errorf("got %+v, %v", second, err)
	}
	same(t, restored(t, dir), files)
	if left, _ := filepath.Glob(filepath.Join(parent, "*")); len(left) != 1 {
		t.Errorf("left over: %v", left)
	}
}

// An interrupted backup leaves the previous one as it was.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	files := map[string]string{"a": "1", "b": "2"}
	from, dir := source(t, files), filepath.Join(t.TempDir(), "backup")
	for range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		_, err := Write(ctx, Config{From: from, Dir: dir, Progress: func(_, _ int64) { cancel() }})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if left, _ := filepath.Glob(dir + ".*"); len(left) > 0 {
			t.Errorf("left over: %v", left)
		}
		if _, err := Write(t.Context(), Config{From: from, Dir: dir}); err != nil {
			t.Fatal(err)
		}
		same(t, restored(t, dir), files)
	}
	// After a crash, its folder is there.
	write(t, filepath.Join(dir+unfinished, "a"), "half")
	same(t, restored(t, dir), files)
	if _, err := Write(t.Context(), Config{From: from, Dir: dir}); err != nil {
		t.Fatal(err)
	}
	same(t, restored(t, dir), files)
	// Where folders can't be exchanged, a crash can leave only the previous backup.
	if err := os.Rename(dir, dir+replaced); err != nil {
		t.Fatal(err)
	}
	if result, err := Write(t.Context(), Config{From: from, Dir: dir}); err != nil || result.Kept != 2 {
		t.Errorf("%+v, %v", result, err)
	}
}

// A backup is durable before it has its name, and its name is durable before the previous
// backup is removed.
func TestDurable(t *testing.T) {
	t.Parallel()
	from, dir := source(t, map[string]string{"a": "1", "hold/blobs/b": "2"}), filepath.Join(t.TempDir(), "backup")
	for _, before := range []string{"", "1"} {
		write(t, filepath.Join(from, "a"), before+"1")
		var synced []string
		_, err := Write(t.Context(), Config{From: from, Dir: dir, syncDir: func(path string) error {
			if rel, err := filepath.Rel(dir+unfinished, path); err == nil && rel != ".." {
				if _, _, err := Total(dir + unfinished); err != nil {
					t.Errorf("the list is not complete when %s is synced: %v", rel, err)
				}
				synced = append(synced, rel)
				return nil
			}
			if _, _, err := Total(dir); err != nil {
				t.Errorf("the backup has no name when %s is synced: %v", path, err)
			}
			if _, _, err := Total(dir + unfinished); before != "" && err != nil {
				t.Errorf("the previous backup was removed: %v", err)
			}
			synced = append(synced, path)
			return nil
		}})
		want := []string{".", "hold", "hold/blobs", filepath.Dir(dir)}
		if err != nil || !slices.Equal(synced, want) {
			t.Errorf("synced %q, want %q; %v", synced, want, err)
		}
	}
}

// A backup that was changed is not restored.
func TestDamaged(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(dir string) error{
		"file missing":   func(dir string) error { return os.Remove(filepath.Join(dir, "hold/b")) },
		"file shorter":   func(dir string) error { return os.Truncate(filepath.Join(dir, "hold/b"), 1) },
		"file changed":   func(dir string) error { return os.WriteFile(filepath.Join(dir, "hold/b"), []byte("21"), 0o600) },
		"list truncated": func(dir string) error { return os.Truncate(filepath.Join(dir, listName), 250) },
		"list changed": func(dir string) error {
			path := filepath.Join(dir, listName)
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(path, []byte(strings.Replace(string(text), `"hold/b"`, `"hold/c"`, 1)), 0o600)
		},
		"path outside": func(dir string) error {
			path := filepath.Join(dir, listName)
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(path, []byte(strings.Replace(string(text), `"hold/b"`, `"../../b"`, 1)), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from, dir := source(t, map[string]string{"a": "1", "hold/b": "12"}), filepath.Join(t.TempDir(), "backup")
			if _, err := Write(t.Context(), Config{From: from, Dir: dir}); err != nil {
				t.Fatal(err)
			}
			// The file in the backup must not be that of the source.
			b := filepath.Join(dir, "hold/b")
			if err := errors.Join(os.Remove(b), os.WriteFile(b, []byte("12"), 0o600), damage(dir)); err != nil {
				t.Fatal(err)
			}
			to := filepath.Join(t.TempDir(), "to")
			if _, _, err := Restore(t.Context(), dir, to, nil); !errors.Is(err, ErrDamaged) {
				t.Errorf("got %v", err)
			}
			if _, err := os.Stat(to); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the folder was not removed: %v", err)
			}
		})
	}
	if _, _, err := Restore(t.Context(), t.TempDir(), filepath.Join(t.TempDir(), "to"), nil); !errors.Is(err, ErrNoBackup) {
		t.Errorf("got %v", err)
	}
}

func TestTarget(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	data := filepath.Join(root, "data")
	write(t, filepath.Join(data, "state/x"), "")
	write(t, filepath.Join(root, "other/x"), "")
	if err := errors.Join(os.Mkdir(filepath.Join(root, "empty"), 0o700), os.Symlink(data, filepath.Join(root, "link"))); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{
		"new": "", "empty": "",
		"data": "contain each other", "data/backup": "contain each other", ".": "contain each other", "link": "contain each other",
		"link/backup": "contain each other", "missing/backup": "must exist", "other": "not a backup",
	} {
		_, err := Target(filepath.Join(root, dir), data)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", dir, err, want)
		}
	}
	if _, err := Target("relative", data); err == nil || !strings.Contains(err.Error(), "absolute") {
		t.Errorf("got %v", err)
	}
}
