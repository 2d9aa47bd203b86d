package config

import (
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/notifier/post"
)

func TestVisible(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		public     []string
		repository string
		want       bool
	}{
		{nil, "app", false},
		{[]string{"never", "oss/**"}, "oss/app", true},
		{[]string{"never", "oss/**"}, "oss", false},
	} {
		o := &Options{Public: tc.public}
		if got := o.Visible(tc.repository); got != tc.want {
			t.Errorf("Visible(%[2]q) with public %[1]q: got %[3]v, want %[4]v", tc.public, tc.repository, got, tc.want)
		}
	}
}

func TestMatch(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		tags, tag string
		want      bool
	}{
		{"", "v1.2.3", true},
		{"", "1.2.3", true},
		{"", "10.20.30", true},
		{"", "v1.2", false},
		{"", "1.2.3.4", false},
		{"", "v1.2.3-rc.1", false},
		{"", "1.2.3-alpine", false},
		{"", "latest", false},
		{"", "vv1.2.3", false},
		{"", "", false},
		{"*", "latest", true},
		{"v*", "v1.2.3-rc.1", true},
		{"v*", "1.2.3", false},
		{"v[0-9]*,edge", "edge", true},
		{"v[0-9]*,edge", "very", false},
	} {
		a := &Announce{}
		if tc.tags != "" {
			a.Tags = strings.Split(tc.tags, ",")
		}
		if got := a.Match(tc.tag); got != tc.want {
			t.Errorf("Match(%[2]q) with tags %[1]q: got %[3]v, want %[4]v", tc.tags, tc.tag, got, tc.want)
		}
	}
}

// Posts with valid links and languages are valid.
func TestValidLinksAndLangs(t *testing.T) {
	t.Parallel()
	valid := 0
	for _, link := range []string{
		"https://ex.example/pfäd/{{.Repository}}", "https://ex.example/a b/{{.Tag}}", "HTTPS://ex.example/{{.Repository}}", "Http://ex.example",
		"https://日本.example/{{.Digest}}", "https://ex.example/?q={{.Repository}}|{{.Tag}}", "https://ex.example/👩‍🚀#{{.Tag}}", "https://ex.example/%zz",
		" https://ex.example/", "https://ex.example/{{.Repository}}\n", "https://ex.example:{{.Tag}}/", "https://{{.Repository}}", "https://ex_ample.com/",
		`{{if eq .Tag "latest"}}https://ex.example{{end}}`, "https://ex.example/{{printf \"%s\" .Tag}}", "ftp://ex.example/", "https://[::1]/{{.Tag}}",
	} {
		for _, lang := range []string{"en", "pt-BR", "EN", "en_US", "i-default", "de-DE-1996", "zh-Hant-TW", "x-private", "e", "en-", "日本"} {
			a := &Announce{Link: link, Langs: []string{lang}, Collect: time.Second, MaxAge: time.Hour, OnDelete: keepPosts}
			var m mistakes
			a.check(&m)
			if len(m.list) > 0 {
				continue
			}
			template, err := post.ParseLink(a.Link)
			if err != nil {
				t.Fatal(err)
			}
			to, err := template.Address(post.Image{Repository: "oss/app", Tag: "v1.2.3", Digest: "sha256:abc"})
			if err != nil {
				t.Fatal(err)
			}
			record, err := post.Compose(post.Facts{Repository: "oss/app", Tags: []string{"v1.2.3"}, Link: to}, a.Langs, time.Now())
			if err == nil {
				_, err = post.Encode(record)
			}
			if err != nil {
				t.Errorf("link %q, language %q: %v", link, lang, err)
			}
			valid++
		}
	}
	if valid < 30 {
		t.Errorf("%d combinations are valid, want at least 30", valid)
	}
}

// Tags that are excluded are not announced, whatever Tags says.
func TestExclude(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		announce Announce
		tag      string
		want     bool
	}{
		{Announce{Exclude: []string{"v0.*"}}, "v0.1.2", false},
		{Announce{Exclude: []string{"v0.*"}}, "v1.0.0", true},
		{Announce{Tags: []string{"*"}, Exclude: []string{"*-debug", "sha-*"}}, "v1-debug", false},
		{Announce{Tags: []string{"*"}, Exclude: []string{"*-debug", "sha-*"}}, "latest", true},
		{Announce{Exclude: []string{"v0.*"}}, "latest", false},
	} {
		if got := tc.announce.Match(tc.tag); got != tc.want {
			t.Errorf("%+v matches %q: got %v, want %v", tc.announce, tc.tag, got, tc.want)
		}
	}
}
