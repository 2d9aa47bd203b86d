package hold

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/atproto/auth"
	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/internal/private"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
)

func initConfig(t *testing.T) InitConfig {
	dir := t.TempDir()
	return InitConfig{Dir: filepath.Join(dir, "hold"), KeyFile: filepath.Join(dir, "hold.key"), Hostname: testHost, Reserve: 1}
}

func mustInit(t *testing.T, cfg InitConfig) {
	t.Helper()
	if did, err := Init(cfg); err != nil || !strings.HasPrefix(did, "did:web:") {
		t.Fatalf("got %s, %v", did, err)
	}
}

// look opens the hold and returns its head and its profile.
func look(t *testing.T, cfg InitConfig) (repo.Head, map[string]any) {
	t.Helper()
	r, id, err := OpenRepo(cfg.repo())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	_, cbor, err := r.Get(lexicon.NSIDProfile, "self")
	if err != nil {
		t.Fatal(err)
	}
	if status, err := lexicon.Validate(lexicon.NSIDProfile, cbor); status != lexicon.StatusValid {
		t.Errorf("profile is %q, %v", status, err)
	}
	profile, err := lexicon.Unmarshal(cbor)
	if err != nil {
		t.Fatal(err)
	}
	if head := r.Head(); head.DID != id.DID {
		t.Errorf("got %s, want %s", head.DID, id.DID)
	}
	return r.Head(), profile
}

func TestInitLabelsBot(t *testing.T) {
	t.Parallel()
	cfg := initConfig(t)
	mustInit(t, cfg)
	head, profile := look(t, cfg)
	labels, _ := lexicon.Marshal(profile["labels"].(map[string]any))
	if profile["displayName"] != testHost || !strings.Contains(string(labels), "bot") {
		t.Errorf("got %v", profile)
	}
	mustInit(t, cfg)
	if again, _ := look(t, cfg); again != head {
		t.Errorf("a second Init changed the head from %v to %v", head, again)
	}
}

func TestInitLongHostname(t *testing.T) {
	t.Parallel()
	cfg := initConfig(t)
	cfg.Hostname = strings.Repeat("a", 62) + ".b.example.com"
	mustInit(t, cfg)
	if _, profile := look(t, cfg); profile["displayName"] != cfg.Hostname[:64] {
		t.Errorf("got %v", profile)
	}
}

func TestInitUpdatesProfile(t *testing.T) {
	t.Parallel()
	cfg := initConfig(t)
	mustInit(t, cfg)
	_, before := look(t, cfg)
	cfg.DisplayName, cfg.Description = "Images", "What is pushed here"
	mustInit(t, cfg)
	head, profile := look(t, cfg)
	if profile["displayName"] != "Images" || profile["description"] != "What is pushed here" || profile["createdAt"] != before["createdAt"] {
		t.Errorf("got %v, was %v", profile, before)
	}
	mustInit(t, cfg)
	if again, _ := look(t, cfg); again != head {
		t.Error("Init without a change made a commit")
	}
	cfg.DisplayName = strings.Repeat("x", 65)
	if _, err := Init(cfg); err == nil || !strings.Contains(err.Error(), "display name") {
		t.Errorf("name too long: got %v", err)
	}
}

// Init continues after a crash between creating the key and the repo.
func TestInitWithKeyOnly(t *testing.T) {
	t.Parallel()
	cfg := initConfig(t)
	key, err := identity.CreateKey(cfg.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	mustInit(t, cfg)
	if loaded, err := identity.LoadKey(cfg.KeyFile); err != nil || !loaded.Equal(key) {
		t.Errorf("the key was replaced, %v", err)
	}
	look(t, cfg)
}

func TestMissingKey(t *testing.T) {
	t.Parallel()
	cfg := initConfig(t)
	mustInit(t, cfg)
	if err := os.Remove(cfg.KeyFile); err != nil {
		t.Fatal(err)
	}
	for _, again := range []bool{false, true} {
		cfg.New = again
		if _, err := Init(cfg); err == nil || !strings.Contains(err.Error(), "from a backup") {
			t.Errorf("Init: got %v", err)
		}
	}
	if _, _, err := OpenRepo(cfg.repo()); err == nil || !strings.Contains(err.Error(), "from a backup") {
		t.Errorf("OpenRepo: got %v", err)
	}
	if _, err := os.Stat(cfg.KeyFile); err == nil {
		t.Error("a key was created")
	}
}

func TestOtherKey(t *testing.T) {
	t.Parallel()
	cfg := initConfig(t)
	mustInit(t, cfg)
	if err := os.Remove(cfg.KeyFile); err != nil {
		t.Fatal(err)
	}
	if _, err := identity.CreateKey(cfg.KeyFile); err != nil {
		t.Fatal(err)
	}
	if _, _, err := OpenRepo(cfg.repo()); err == nil || !strings.Contains(err.Error(), "signed by another key") {
		t.Errorf("got %v", err)
	}
}

func TestOtherHostname(t *testing.T) {
	t.Parallel()
	cfg := initConfig(t)
	mustInit(t, cfg)
	cfg.Hostname = "other.example.com"
	for name, open := range map[string]func() error{
		"Init":     func() error { _, err := Init(cfg); return err },
		"OpenRepo": func() error { _, _, err := OpenRepo(cfg.repo()); return err },
	} {
		err := open()
		for _, want := range []string{"did:web:" + testHost, "did:web:other.example.com", "hold init --new"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want an error with %q", name, err, want)
			}
		}
	}
	cfg.New, cfg.Now = true, func() time.Time { return time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC) }
	mustInit(t, cfg)
	cfg.Now = nil
	if kept := cfg.Dir + ".old-20300102T030405"; !repo.Exists(kept) {
		t.Errorf("the old repo is not in %s", kept)
	}
}

func TestOpenRepoBeforeInit(t *testing.T) {
	t.Parallel()
	cfg := initConfig(t)
	if _, _, err := OpenRepo(cfg.repo()); err == nil || !strings.Contains(err.Error(), "tidings hold init") {
		t.Errorf("without a key: got %v", err)
	}
	if _, err := identity.CreateKey(cfg.KeyFile); err != nil {
		t.Fatal(err)
	}
	if _, _, err := OpenRepo(cfg.repo()); err == nil || !strings.Contains(err.Error(), "tidings hold init") {
		t.Errorf("without a repo: got %v", err)
	}
	if repo.Exists(cfg.Dir) {
		t.Error("OpenRepo created a repo")
	}
}

// Files with secrets are readable by their owner only.
func TestFilesArePrivate(t *testing.T) {
	t.Parallel()
	cfg := initConfig(t)
	mustInit(t, cfg)
	if _, err := auth.SetPassword(filepath.Join(filepath.Dir(cfg.KeyFile), "hold.password")); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(filepath.Dir(cfg.KeyFile), "hold.*"))
	if err != nil || len(files) != 2 {
		t.Fatalf("got %v, %v", files, err)
	}
	for _, file := range files {
		if _, err := private.ReadFile(file); err != nil {
			t.Error(err)
		}
	}
}
