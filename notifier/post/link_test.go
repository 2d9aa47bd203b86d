package post

import (
	"strings"
	"testing"
)

func TestLink(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"https://ex.example/oss/app?tag=v1#x":    "https://ex.example/oss/app?tag=v1#x",
		"https://ex.example/pfäd/oss/app":        "https://ex.example/pf%C3%A4d/oss/app",
		"https://ex.example/pf%C3%A4d/oss%2Fapp": "https://ex.example/pf%C3%A4d/oss%2Fapp",
		"https://ex.example/a b?c d#e f":         "https://ex.example/a%20b?c%20d#e%20f",
		"https://ex.example/?q=日本&\"<>":          "https://ex.example/?q=%E6%97%A5%E6%9C%AC&%22%3C%3E",
		"HTTPS://Ex.Example/A":                   "https://ex.example/A",
		"https://bücher.example:8443/":           "https://xn--bcher-kva.example:8443/",
		"http://[::1]:5000/a":                    "http://[::1]:5000/a",
		"http://localhost":                       "http://localhost",
		"example.com/app":                        "",
		"//example.com/app":                      "",
		"javascript:alert(1)":                    "",
		"https:///app":                           "",
		"https://:443/":                          "",
		"https://u:p@example.com/":               "",
		"https://exam ple.com/":                  "",
		"https://example.com:x/":                 "",
		"https://a_b.example.com/":               "https://a_b.example.com/",
		"https://日 本.example/":                   "",
		"https://example.com/\x00":               "",
		"":                                       "",
	} {
		got, err := asciiLink(address)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v, want %q", address, got, err, want)
		}
		if err := CheckLink(address); (err == nil) != (want != "") {
			t.Errorf("CheckLink(%q): got %v, want an error: %v", address, err, want == "")
		}
		if want == "" {
			continue
		}
		record, err := Compose(Facts{Repository: "oss/app", Tags: []string{"v1"}, Link: address}, nil, when)
		if err != nil {
			t.Errorf("%q: %v", address, err)
			continue
		}
		checkPost(t, record, want)
	}
}

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
		"https://example.com/{{.Name}}": "execute the link: line 1, column 23: there is no .Name; use .Repository, .Tag, .Digest",
		"https://example.com/{{":        "parse the link: line 1: unclosed action; it may use {{.Repository}}, {{.Tag}} and {{.Digest}}",
		"ftp://example.com/":            "is an invalid link",
		"https:///app":                  "is an invalid link",
		"https://user@example.com/":     "a user name or a password",
	} {
		if _, err := ParseLink(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}
