package repair

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tidings-dev/tidings/atproto/repo/layout"
	"github.com/tidings-dev/tidings/internal/exchange"
	"github.com/tidings-dev/tidings/internal/store"
)

// noRename is a file system that can't rename to a backup.
type noRename struct{ vfs.FS }

func (f noRename) Rename(from, to string) error {
	if strings.Contains(to, ".before-repair-") {
		return &fs.PathError{Op: "rename", Path: to, Err: errors.New("input/output error")}
	}
	return f.FS.Rename(from, to)
}

// If the exchange of the folders fails, the old repo is not removed.
func TestReplaceFails(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	filled(t, cfg, 20)
	tamper(t, cfg, func(_ *store.Store, b store.Batch) {
		b.DeleteRange([]byte(layout.PrefixIndex), layout.End(layout.PrefixIndex))
	})
	broken := cfg
	broken.FS = noRename{cfg.FS}
	if _, err := Repair(t.Context(), Config{Config: broken}); err == nil {
		t.Fatal("no error")
	}
	if report, lines := verify(t, cfg); len(lines) == 0 || report.Records != 21 {
		t.Errorf("the old repo: %d records, %q", report.Records, lines)
	}
}

// A failed rename after the exchange leaves both repos.
func TestReplaceFailsAfterExchange(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"hold", "hold.new-1"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "is"), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	hold, next := filepath.Join(dir, "hold"), filepath.Join(dir, "hold.new-1")
	if err := exchange.Paths(hold, next); errors.Is(err, errors.ErrUnsupported) {
		t.Skip("exchange is not supported on this system")
	} else if err != nil {
		t.Fatal(err)
	}
	r := &rebuild{dir: next, closed: true, replacing: true}
	r.cfg.FS = vfs.Default
	if err := r.abort(); err != nil {
		t.Error(err)
	}
	for path, want := range map[string]string{hold: "hold.new-1", next: "hold"} {
		if got, err := os.ReadFile(filepath.Join(path, "is")); string(got) != want {
			t.Errorf("%s is %q, want %q (%v)", path, got, want, err)
		}
	}
}
