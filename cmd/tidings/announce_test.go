package main

import (
	"bytes"
	"encoding/json"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
)

// With sample facts a preview needs neither the account nor images.
func TestAnnouncePreviewSample(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const options = "data: ./data\npublic: [\"oss/**\"]\nhold: {hostname: registry.example.com}\n"
	file(t, dir, "c.yml", options+"announce: {anonymous_pushes: true, link: \"https://example.com/{{.Repository}}\", hashtags: [containers], dry_run: true}")
	preview := []string{"announce", "preview", "c.yml"}
	expect(t, dir, 0, append(preview, "--card", "card.png"), "image        oss/app:v1.2.3", "decision     none; these are sample facts", "posts are only logged",
		"[oss/app:v1.2.3](https://example.com/oss/app) was pushed (also v1.2, latest)", "docker pull registry.example.com/oss/app:v1.2.3", "[#containers](#containers)",
		"of 300 graphemes, ", "link         https://example.com/oss/app", "languages    en", "title        oss/app:v1.2.3", "description  45.2 MB, 7 layers", "card         written to card.png")
	content, err := os.ReadFile(filepath.Join(dir, "card.png"))
	if err != nil {
		t.Fatal(err)
	}
	if picture, err := png.DecodeConfig(bytes.NewReader(content)); err != nil || picture.Width != 1200 {
		t.Errorf("the card: %+v, %v", picture, err)
	}
	expect(t, dir, 1, append(preview, "--card", "card.png"), "card.png already exists and is not overwritten")
	if cli.Exists(filepath.Join(dir, "data")) {
		t.Error("the data folder is created")
	}
	file(t, dir, "c.yml", options+"announce: {anonymous_pushes: true, card: false}")
	expect(t, dir, 0, preview, "picture    none")
	expect(t, dir, 1, append(preview, "--card", "none.png"), "the post has no picture, so no file is written")
	file(t, dir, "c.yml", options)
	expect(t, dir, 1, preview, "nothing is announced; add `announce: {}`")
}

// The preview of a pushed image is its post, also while the server runs.
func TestAnnouncePreview(t *testing.T) {
	t.Parallel()
	s := newServer(t, settings{options: `announce: {tags: ["v*"], collect: 300ms, cooldown: 0s, daily_limit: 0, card: false}`})
	s.start()
	s.push(t, "oss/app", "v1.0.0", newImage(2))
	s.push(t, "oss/app", "edge", newImage(1))
	s.push(t, "secret/app", "v1.0.0", newImage(1))
	s.waitDrained()
	posts := s.records(t, s.did, postCollection)
	if len(posts) != 1 {
		t.Fatalf("%d posts, want 1", len(posts))
	}
	preview := func(image string) []string { return []string{"announce", "preview", s.config, image} }
	expect(t, s.dir, 0, preview("oss/app:v1.0.0"), "decision   would be posted\n", "not checked: whether it was announced before; the state is in use by the running server")
	expect(t, s.dir, 0, preview("oss/app:edge"), "not announced: no tag that is announced", `announced are tags that match "v*"`)
	expect(t, s.dir, 0, preview("secret/app:v1.0.0"), "not announced: not public")
	expect(t, s.dir, 1, preview("oss/app:v9"), "oss/app:v9: not in the registry's storage; push it first")
	expect(t, s.dir, 1, preview("oss/app"), "has neither a tag nor a digest")
	expect(t, s.dir, 1, preview("oss//app:v1"), "is not an image; write it as the registry names it")
	s.stop()
	expect(t, s.dir, 0, preview("oss/app:v1.0.0"), "decision   not announced: announced before: "+posts[0].URI)
	var r previewReport
	out := expect(t, s.dir, 0, append(preview("oss/app:v1.0.0"), "--json"))
	if err := json.Unmarshal([]byte(out), &r); err != nil || r.Decision != "not announced" || r.Announced != posts[0].URI || r.Unchecked != "" || r.Post == nil {
		t.Fatalf("%v: %s", err, out)
	}
	if r.Post.Text != posts[0].Value["text"] || r.Post.Bytes != len(r.Post.Text) || !strings.Contains(string(r.Post.Record), `"tidingsImage"`) {
		t.Errorf("the preview is %+v, the post %v", r.Post, posts[0].Value)
	}
	expect(t, s.dir, 0, preview("oss/app@"+r.Digest), "image      oss/app:v1.0.0", "announced before: "+posts[0].URI)
}
