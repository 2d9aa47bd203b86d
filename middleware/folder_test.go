package middleware

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/configuration"

	"github.com/tidings-dev/tidings/atproto/hold"
)

// Everything in the data folder is for its owner alone, whatever it was before
// and whoever made it.
func TestDataFolderIsPrivate(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	_, err := hold.Init(hold.InitConfig{Dir: filepath.Join(data, "hold"), KeyFile: filepath.Join(data, "hold.key"), Hostname: "localhost:5000", Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	token := filepath.Join(data, "token")
	host := minimalConfig("")
	host.Storage = configuration.Storage{"inmemory": nil}
	host.Middleware = map[string][]configuration.Middleware{"repository": {{Name: Name, Options: configuration.Parameters{
		"data": data, "reserve": "1MiB", "hold": map[string]any{"hostname": "localhost:5000"}, "api": map[string]any{"token_file": token},
	}}}}
	open := func() *Handler {
		t.Helper()
		h, err := Open(host)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	private := func(when string) {
		t.Helper()
		err := filepath.WalkDir(data, func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := entry.Info()
			if err == nil && info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s: %s has mode %v", when, path, info.Mode())
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	h := open()
	private("made")
	if err := h.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	// As an earlier version, or a backup, has left it.
	err = filepath.WalkDir(data, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil || path == filepath.Join(data, "hold.key"):
			return err
		case entry.IsDir():
			return os.Chmod(path, 0o755)
		}
		return os.Chmod(path, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	h = open()
	private("opened again")
	if err := h.Close(context.Background()); err != nil {
		t.Fatal(err)
	}

	if err := os.WriteFile(token, []byte("secret"), 0o604); err != nil {
		t.Fatal(err)
	}
	h, err = Open(host)
	if err == nil || !strings.Contains(err.Error(), "options.api.token_file: "+token+" can be read by others than its owner") {
		t.Errorf("with a token that others can read: %v", err)
	}
	if h != nil {
		h.Close(context.Background())
	}
}
