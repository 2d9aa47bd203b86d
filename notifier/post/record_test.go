package post

import (
	"testing"
)

// CheckLangs accepts exactly the languages that the schema of a post accepts.
func TestLangs(t *testing.T) {
	t.Parallel()
	for lang, want := range map[string]bool{
		"en": true, "pt-BR": true, "zh-Hans-CN": true, "sl-rozaj-biske": true,
		"EN": false, "en_US": false, "en-a": false, "sl-rozaj-rozaj": false, "i": false, "": false,
	} {
		if err := CheckLangs([]string{lang}); (err == nil) != want {
			t.Errorf("CheckLangs(%q): got %v, want valid: %v", lang, err, want)
		}
		record := map[string]any{"$type": "app.bsky.feed.post", "text": "x", "createdAt": "2026-01-02T03:04:05Z", "langs": []any{lang}}
		if _, err := Encode(record); (err == nil) != want {
			t.Errorf("Encode of a post in %q: got %v, want valid: %v", lang, err, want)
		}
	}
}
