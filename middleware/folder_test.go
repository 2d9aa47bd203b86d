package middleware

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/configuration"

	"github.com/tidings-dev/tidings/atproto/hold"
	"github.com/tidings-dev/tidings/middleware/datafolder"
)

// Only its owner has access to the files of the data folder, also to those that had
// another mode before.
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
			var info fs.FileInfo
			if err == nil {
				info, err = entry.Info()
			}
			if errors.Is(err, fs.ErrNotExist) { // Deleted since the folder was listed.
				return nil
			}
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
	private("created")
	if err := h.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	// Modes as left by an earlier version or a restored backup.
	err = filepath.WalkDir(data, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
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

	if err := errors.Join(os.WriteFile(token, []byte("secret"), 0o600), os.Chmod(token, 0o606)); err != nil {
		t.Fatal(err)
	}
	h, err = Open(host)
	if err == nil || !strings.Contains(err.Error(), "options.api.token_file: "+token+" can be changed by other users") {
		t.Errorf("with a token file that others can change: %v", err)
	}
	if h != nil {
		h.Close(context.Background())
	}
}

// The first start on a copy of the data folder signs a commit, so that subscribers of
// the original fetch the repo again. Other starts do not.
func TestCopiedDataFolder(t *testing.T) {
	t.Parallel()
	data, copied := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	did, err := hold.Init(hold.InitConfig{Dir: filepath.Join(data, "hold"), KeyFile: filepath.Join(data, "hold.key"), Hostname: "localhost:5000", Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	if datafolder.ID(filepath.Join(data, "hold")) == "" {
		t.Skip("needs Linux and a file system that records birth times; set TMPDIR to one")
	}
	revOf := func(data string) string {
		t.Helper()
		config := minimalConfig("")
		config.Middleware = map[string][]configuration.Middleware{"repository": {{Name: Name, Options: configuration.Parameters{
			"data": data, "hold": map[string]any{"hostname": "localhost:5000", "reserve": "1MiB"},
		}}}}
		h, err := OpenHold(config)
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close(t.Context())
		var latest struct{ Rev string }
		body := get(t, h.Routes(), "/xrpc/com.atproto.sync.getLatestCommit?did="+url.QueryEscape(did)).Body.Bytes()
		if err := json.Unmarshal(body, &latest); err != nil || latest.Rev == "" {
			t.Fatalf("%s: %v", body, err)
		}
		return latest.Rev
	}
	first := revOf(data)
	if again := revOf(data); again != first {
		t.Errorf("another start signs %s after %s", again, first)
	}
	if err := os.CopyFS(copied, os.DirFS(data)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(copied, "hold.key"), 0o600); err != nil {
		t.Fatal(err)
	}
	rev := revOf(copied)
	if rev <= first {
		t.Errorf("the copy is at %s, want a later rev than %s", rev, first)
	}
	if again := revOf(copied); again != rev {
		t.Errorf("another start of the copy signs %s after %s", again, rev)
	}
}
