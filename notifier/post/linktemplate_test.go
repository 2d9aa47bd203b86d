package post

import (
	"strings"
	"testing"
)

func TestLinkTemplate(t *testing.T) {
	t.Parallel()
	image := Image{"oss/app", "v1", "sha256:ab"}
	for text, want := range map[string]string{
		"":                    "",
		"https://example.com": "https://example.com",
		"https://example.com/{{.Repository}}?tag={{.Tag}}#{{.Digest}}": "https://example.com/oss/app?tag=v1#sha256:ab",
	} {
		l, err := ParseLink(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got, err := l.Address(image); err != nil || got != want {
			t.Errorf("%q: got %q, %v; want %q", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"https://example.com/{{.Name}}": "it may use {{.Repository}}, {{.Tag}} and {{.Digest}}",
		"https://example.com/{{":        "parse the link",
		"ftp://example.com/":            "is an invalid link",
		"https:///app":                  "is an invalid link",
		"https://user@example.com/":     "a user name or a password",
	} {
		if _, err := ParseLink(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}
