package hold

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAvatar(t *testing.T) {
	t.Parallel()
	cfg := initConfig(t)
	cfg.Avatar = filepath.Join(t.TempDir(), "avatar")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(cfg.Avatar, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(png)
	if err := CheckAvatar(cfg.Avatar); err != nil {
		t.Error(err)
	}
	mustInit(t, cfg)
	first, profile := look(t, cfg)
	avatar, _ := profile["avatar"].(map[string]any)
	if avatar["mimeType"] != "image/png" || avatar["size"] != int64(len(png)) {
		t.Errorf("got %v", avatar)
	}
	mustInit(t, cfg)
	if again, _ := look(t, cfg); again != first {
		t.Error("the same avatar caused a commit")
	}
	write("\xff\xd8\xff\xe0 a JPEG")
	mustInit(t, cfg)
	changed, profile := look(t, cfg)
	if avatar := profile["avatar"].(map[string]any); changed == first || avatar["mimeType"] != "image/jpeg" {
		t.Errorf("got %v", avatar)
	}
	for content, want := range map[string]string{
		"<svg/>":                             "neither PNG nor JPEG",
		png + strings.Repeat("x", maxAvatar): "at most 1000000 are allowed",
	} {
		write(content)
		if _, err := Init(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.10q: got %v, want %q", content, err, want)
		}
		if err := CheckAvatar(cfg.Avatar); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.10q: CheckAvatar returns %v, want %q", content, err, want)
		}
	}
	cfg.Avatar += ".none"
	if _, err := Init(cfg); err == nil || !strings.Contains(err.Error(), "open avatar") {
		t.Errorf("missing file: got %v", err)
	}
	cfg.Avatar = ""
	mustInit(t, cfg)
	if last, profile := look(t, cfg); last != changed || profile["avatar"] == nil {
		t.Errorf("no avatar configured: got %v", profile)
	}
}
