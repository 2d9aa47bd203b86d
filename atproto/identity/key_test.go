package identity

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestKeyFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "new", "hold.key")
	_, err := LoadKey(path)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "tidings hold init") {
		t.Errorf("missing: got %v", err)
	}
	key, err := CreateKey(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v, %v, want 0600", info.Mode(), err)
	}
	if _, err := CreateKey(path); err == nil {
		t.Error("a key was overwritten")
	}
	loaded, err := LoadKey(path)
	if err != nil || !loaded.Equal(key) {
		t.Errorf("got another key, %v", err)
	}
	if files, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".secret-*")); len(files) > 0 {
		t.Errorf("temporary files: %v", files)
	}
}

func TestInvalidKeyFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key, err := CreateKey(filepath.Join(dir, "valid"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, content, want string
		mode                fs.FileMode
	}{
		{"writable by the group", key.Multibase(), "chmod 600", 0o660},
		{"writable by all", key.Multibase(), "chmod 600", 0o602},
		{"truncated", key.Multibase()[:20], "does not contain a private key", 0o600},
		{"public", "zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme", "does not contain a private key", 0o600},
		{"empty", "", "is empty", 0o600},
		{"long", strings.Repeat("z", 5000), "too large", 0o600},
	} {
		path := filepath.Join(dir, c.name)
		if err := os.WriteFile(path, []byte(c.content), c.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		_, err := LoadKey(path)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
		if err != nil && len(c.content) > 10 && strings.Contains(err.Error(), c.content[:10]) {
			t.Errorf("%s: the error quotes the file: %v", c.name, err)
		}
	}
	if _, err := LoadKey(dir); err == nil {
		t.Error("a directory was read as a key")
	}
}
