package hold

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/repo/repair"

	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/internal/private"
)

// checkRotated checks the files and the repo after a rotation.
func checkRotated(t *testing.T, cfg RepoConfig, before []byte, done Rotation) {
	t.Helper()
	now, err := os.ReadFile(cfg.KeyFile)
	if err != nil || string(now) == string(before) {
		t.Fatalf("the key was not replaced, %v", err)
	}
	kept, err := os.ReadFile(done.OldKeyFile)
	if err != nil || string(kept) != string(before) {
		t.Errorf("the old key is not kept: %v", err)
	}
	for _, file := range []string{cfg.KeyFile, done.OldKeyFile} {
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want 0600", file, info.Mode(), err)
		}
	}
	if _, err := os.Stat(cfg.KeyFile + ".next"); err == nil {
		t.Error("the file of the next key is still there")
	}
	offline, old, err := Offline(cfg)
	if err != nil || len(old) == 0 {
		t.Fatalf("%d old keys, %v", len(old), err)
	}
	report, err := repair.Verify(context.Background(), offline, old, func(p repair.Problem) { t.Errorf("problem: %s", p) }, nil)
	if err != nil || report.Head != done.Head {
		t.Errorf("%+v, %v; want %+v", report.Head, err, done.Head)
	}
	r, id, err := OpenRepo(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	public, err := id.Key.PublicKey()
	if err != nil || public.DIDKey() != done.New || done.Old == done.New {
		t.Errorf("the key is %s, %v; want that of %+v", public.DIDKey(), err, done)
	}
}

func TestRotateKey(t *testing.T) {
	t.Parallel()
	cfg := rotationHold(t)
	for range 2 {
		before, err := os.ReadFile(cfg.KeyFile)
		if err != nil {
			t.Fatal(err)
		}
		done, err := RotateKey(cfg)
		if err != nil {
			t.Fatal(err)
		}
		checkRotated(t, cfg, before, done)
	}
	if old, err := identity.OldKeys(cfg.KeyFile); err != nil || len(old) != 2 {
		t.Errorf("%d old keys, %v", len(old), err)
	}
}

// A rotation that was interrupted between any two steps is finished by the next.
func TestRotateKeyInterrupted(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		stop func(t *testing.T, cfg RepoConfig)
		open bool // the repo can be opened in this state
	}{
		{"next key created", func(t *testing.T, cfg RepoConfig) {
			if _, err := identity.CreateKey(cfg.KeyFile + ".next"); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"old key kept", func(t *testing.T, cfg RepoConfig) {
			key, err := identity.LoadKey(cfg.KeyFile)
			if err != nil {
				t.Fatal(err)
			}
			public, err := key.PublicKey()
			if err != nil {
				t.Fatal(err)
			}
			if err := private.CreateFile(identity.OldKeyFile(cfg.KeyFile, public), []byte(key.Multibase()+"\n")); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"key replaced", func(t *testing.T, cfg RepoConfig) {
			if _, err := identity.ReplaceKey(cfg.KeyFile); err != nil {
				t.Fatal(err)
			}
		}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			cfg := rotationHold(t)
			before, err := os.ReadFile(cfg.KeyFile)
			if err != nil {
				t.Fatal(err)
			}
			tc.stop(t, cfg)
			r, _, err := OpenRepo(cfg)
			switch {
			case tc.open && err != nil:
				t.Fatal(err)
			case tc.open:
				r.Close()
			case err == nil || !strings.Contains(err.Error(), "finish it with `tidings hold key rotate`"):
				t.Fatalf("opened after step 3: %v", err)
			}
			done, err := RotateKey(cfg)
			if err != nil {
				t.Fatal(err)
			}
			checkRotated(t, cfg, before, done)
		})
	}
}

// A key that has not signed the repo is refused, and no file changes.
func TestRotateOtherKey(t *testing.T) {
	t.Parallel()
	cfg := rotationHold(t)
	if err := os.Remove(cfg.KeyFile); err != nil {
		t.Fatal(err)
	}
	if _, err := identity.CreateKey(cfg.KeyFile); err != nil {
		t.Fatal(err)
	}
	if _, err := RotateKey(cfg); !errors.Is(err, repo.ErrKey) {
		t.Errorf("got %v, want ErrKey", err)
	}
	if files, _ := filepath.Glob(cfg.KeyFile + "*"); len(files) != 1 {
		t.Errorf("other files: %q", files)
	}
}

func rotationHold(t *testing.T) RepoConfig {
	t.Helper()
	dir := t.TempDir()
	cfg := RepoConfig{Dir: filepath.Join(dir, "hold"), KeyFile: filepath.Join(dir, "hold.key"), Hostname: "localhost:5000", Reserve: 1}
	if _, err := Init(InitConfig{Dir: cfg.Dir, KeyFile: cfg.KeyFile, Hostname: cfg.Hostname, Reserve: 1}); err != nil {
		t.Fatal(err)
	}
	return cfg
}
