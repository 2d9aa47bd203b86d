package middleware

import (
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/distribution/distribution/v3/configuration"

	"github.com/tidings-dev/tidings/atproto/hold"
)

// The first start on a copy of the data folder signs a commit, so that whoever
// followed the original further fetches the account again. Other starts don't.
func TestCopyOfAFolder(t *testing.T) {
	t.Parallel()
	data, copied := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	did, err := hold.Init(hold.InitConfig{Dir: filepath.Join(data, "hold"), KeyFile: filepath.Join(data, "hold.key"), Hostname: "localhost:5000", Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	if folderName(filepath.Join(data, "hold")) == "" {
		t.Skip("needs a file system that tells when a file was made, on Linux; name one with TMPDIR")
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
		t.Errorf("the copy is at %s, as before: %s", rev, first)
	}
	if again := revOf(copied); again != rev {
		t.Errorf("another start of the copy signs %s after %s", again, rev)
	}
}
