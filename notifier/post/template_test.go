package post

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

// fullTemplate uses all data and functions.
const fullTemplate = `{{if .First}}New: {{end}}{{link (print .Name ":" .Tag) .Link}}` +
	`{{with .Tags}} ({{join . ", "}}{{with $.MoreTags}} and {{.}} more{{end}}){{end}}{{with .MoreVersions}} and {{.}} more versions{{end}}
{{with index .Annotations "org.opencontainers.image.title"}}“{{.}}”{{end}}
{{.Size}} {{.Images}} {{.Layers}} {{range $i, $p := .Platforms}}{{if $i}}, {{end}}{{$p}}{{end}}{{with .MorePlatforms}} and {{.}} more{{end}}
{{with .Reference}}
$ docker pull {{.}}
{{end}}
{{mention .Handle .Owner}} {{range .Hashtags}}{{hashtag .}} {{end}}{{.Time}} {{.Repository}}@{{.Digest}}`

const titleKey = "org.opencontainers.image.title"

func mustTemplate(t testing.TB, text string) *Template {
	t.Helper()
	parsed, err := ParseTemplate(text, []string{titleKey})
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// facets lists the facets of a post as text=target.
func facets(record map[string]any) []string {
	var list []string
	all, _ := record["facets"].([]any)
	for _, facet := range all {
		start, end := span(facet)
		list = append(list, record["text"].(string)[start:end]+"="+target(facet))
	}
	return list
}

// target is the address, DID or hashtag of a facet.
func target(facet any) string {
	feature := facet.(map[string]any)["features"].([]any)[0].(map[string]any)
	for _, member := range []string{"uri", "did", "tag"} {
		if target, ok := feature[member]; ok {
			return target.(string)
		}
	}
	return ""
}

func TestTemplate(t *testing.T) {
	t.Parallel()
	facts := Facts{
		Repository: "oss/app", Tags: []string{"v1.2.3", "v1.2"}, Size: 45_230_000, Layers: 7, Digest: "sha256:ab",
		Platforms: []string{"linux/amd64"}, Reference: "registry.example.com/oss/app:v1.2.3", Link: "https://example.com/app",
		Mention: Mention{"alice.example.com", "did:plc:ewvi7nxzyoun6zhxrhs64oiz"}, Hashtags: []string{"containers", "été", "#no", "1"},
		Annotations: map[string]string{titleKey: "An https://evil.example app\n\u202e#free @bob.example"},
	}
	const link, mention = "https://example.com/app", "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
	title := `(index .Annotations "` + titleKey + `")`
	for _, tc := range []struct {
		template, text string
		facets         []string
	}{
		{"{{.Name}}:{{.Tag}}", "oss/app:v1.2.3", nil},
		{"{{link .Tag .Link}} {{link .Tag .Link}}", "v1.2.3 v1.2.3", []string{"v1.2.3=" + link, "v1.2.3=" + link}},
		{`{{link "here" (print "https://example.com/" .Repository "?tag=" .Tag)}}`, "here", []string{"here=https://example.com/oss/app?tag=v1.2.3"}},
		{`{{link "oss" ""}}`, "oss", nil},
		{"in {{range .Hashtags}}{{hashtag .}} {{end}}", "in #containers #été", []string{"#containers=containers", "#été=été"}},
		{"by {{mention .Handle .Owner}}", "by @alice.example.com", []string{"@alice.example.com=" + mention}},
		{"{{link (link .Tag .Link) .Link}}", "v1.2.3", []string{"v1.2.3=" + link}},
		{"{{$x := link .Tag .Link}}{{$x}}{{$x}}", "v1.2.3v1.2.3", []string{"v1.2.3=" + link, "v1.2.3=" + link}},
		{"{{.Size}}\n\n\n\n{{.Time}} {{.First}} {{.MoreVersions}}  \n\n", "45.2 MB\n\n2031-05-06 06:08 UTC false 0", nil},
		{"{{.Tag}}: {{" + title + "}}", "v1.2.3: An https://evil.example app #free @bob.example", nil},
		{"{{.Tag}}: {{link " + title + " .Link}}", "v1.2.3: An https://evil.example app #free @bob.example", []string{"An https://evil.example app #free @bob.example=" + link}},
		{"{{if eq " + title + ` "Other"}}a{{else}}b{{end}}`, "b", nil},
		{`{{link "\\ufdd0" .Link}}`, `\ufdd0`, []string{`\ufdd0=` + link}},
	} {
		record, err := mustTemplate(t, tc.template).Compose(facts, []string{"en"}, when)
		if err != nil {
			t.Errorf("%s: %v", tc.template, err)
			continue
		}
		checkRecord(t, record)
		if got := record["text"]; got != tc.text || fmt.Sprint(facets(record)) != fmt.Sprint(tc.facets) {
			t.Errorf("%s: got %q with %q, want %q with %q", tc.template, got, facets(record), tc.text, tc.facets)
		}
	}
}

// What the client that pushes has chosen is never the target of a facet.
func TestTemplateAnnotationsAreNoTargets(t *testing.T) {
	t.Parallel()
	index := `(index .Annotations "` + titleKey + `")`
	for _, text := range []string{
		`{{link "x" ` + index + `}}`,
		`{{link "x" (print "https://example.com/" ` + index + `)}}`,
		`{{link "x" (or ` + index + ` "https://example.com")}}`,
		`{{$a := ` + index + `}}{{$a = print $a "/"}}{{link "x" (print $a)}}`,
		`{{range .Annotations}}{{link "x" .}}{{end}}`,
		`{{with .Annotations}}{{link "x" (print .)}}{{end}}`,
		`{{link "x" (print .)}}`,
		`{{hashtag ` + index + `}}`,
		`{{mention ` + index + ` "did:plc:ewvi7nxzyoun6zhxrhs64oiz"}}`,
		`{{mention .Handle ` + index + `}}`,
	} {
		if _, err := ParseTemplate(text, []string{titleKey}); err == nil || !strings.Contains(err.Error(), "annotation") {
			t.Errorf("%s: got %v, want an error about annotations", text, err)
		}
		// A template that is not refused, since its sample did not show it, has no facet.
		parsed := parseUnchecked(t, text)
		record, err := parsed.Compose(Facts{
			Repository: "app", Tags: []string{"v1"}, Annotations: map[string]string{titleKey: "https://evil.example"},
			Mention: Mention{"alice.example.com", "did:web:alice.example.com"},
		}, nil, when)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		checkRecord(t, record)
		if list := facets(record); len(list) > 0 {
			t.Errorf("%s: got the facets %q", text, list)
		}
	}
}

func parseUnchecked(t testing.TB, text string) *Template {
	t.Helper()
	parsed, err := mustTemplate(t, "{{.Name}}").parsed.Clone()
	if err == nil {
		parsed, err = parsed.Parse(text)
	}
	if err != nil {
		t.Fatal(err)
	}
	return &Template{parsed, []string{titleKey}}
}

func TestTemplateErrors(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                                 "is empty",
		" \n":                              "is empty",
		"{{/* nothing */}}":                "writes nothing",
		"{{.Name":                          "parse the template: line 1: unclosed action",
		"{{.Nope}}":                        "execute the template: line 1, column 3: there is no .Nope; use .Repository, .Name, .Tag, ",
		"x{{if .First}}\n{{.Nope}}{{end}}": "line 2, column 3: there is no .Nope",
		"{{range .Tags}}{{.Name}}{{end}}":  "line 1, column 18: there is no .Name in this value; in range and with, $.Name is",
		"{{link .Name}}":                   "line 1, column 3: {{link}}: wrong number of args for link: want 2 got 1",
		"{{with .First}}x{{end}}":          "oss/app:v1.2.3: execute the template: it writes nothing",
		`{{index .Tags 0}}`:                "line 1, column 3: {{index .Tags 0}}: slice index out of range",
		`{{printf "%9d" 1}}`:               "the template calls printf",
		`{{.Name | html}}`:                 "the template calls html",
		`{{call .Name}}`:                   "the template calls call",
		`{{slice .Name 1}}`:                "the template calls slice",
		`{{exec "ls"}}`:                    "line 1: there is no function exec; use hashtag, join, link, mention, print, and, ",
		`{{range 1000000000}}x{{end}}`:     "range is for .Tags, .Platforms, .Hashtags, .Annotations",
		`{{range .Tags}}{{range $.Tags}}x{{end}}{{end}}`:                     "not in another range",
		`{{range .Tags}}{{if .}}{{range $.Platforms}}x{{end}}{{end}}{{end}}`: "not in another range",
		`{{define "a"}}x{{end}}{{template "a"}}`:                             "defines another template",
		`{{block "a" .}}x{{end}}`:                                            "defines another template",
		`x{{template "template"}}`:                                           "executes another template",
		"x\uFDD00":                                                           "noncharacter",
		`{{"\ufdd0"}}`:                                                       "noncharacter",
		`{{link "x" "javascript:alert(1)"}}`:                                 "want http",
		`{{hashtag .Tag}}`:                                                   `"v1.2.3" is an invalid hashtag`,
		`{{mention "nobody" "did:web:example.com"}}`:                         "invalid handle",
		`{{index .Annotations "other"}}`:                                     `the annotation "other", which announce.annotations does not list`,
		`{{.Annotations.other}}`:                                             `the annotation "other"`,
		`{{$.Annotations.other}}`:                                            `the annotation "other"`,
		`{{join .Tags (index .Annotations "` + titleKey + `")}}`:             "wrong type",
		strings.Repeat("x", maxTemplate+1):                                   "4097 bytes",
	} {
		if _, err := ParseTemplate(text, []string{titleKey}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80q: got %v, want %q", text, err, want)
		}
	}
	for want, keys := range map[string][]string{
		"at most 16":              numbered("key%d", 17),
		"has no name":             {""},
		"listed twice":            {"a", "a"},
		"invalid annotation name": {"a\nb"},
	} {
		if _, err := ParseTemplate("{{.Name}}", keys); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80q: got %v, want %q", keys, err, want)
		}
	}
}

// A template that writes more than a post can hold, or takes long, has a post that is cut.
func TestTemplateIsBounded(t *testing.T) {
	t.Parallel()
	double := `{{$x := print .Repository "-"}}` + strings.Repeat(`{{$x = print $x $x}}`, 60) + `{{$x}}`
	for name, text := range map[string]string{
		"time":           "{{range .Tags}}" + strings.Repeat("{{if and true true}}{{end}}", 130) + "{{end}}" + strings.Repeat("x", 301),
		"long text":      strings.Repeat("é ", 1000),
		"doubled":        "begin " + double,
		"long range":     "{{.Name}} {{range .Tags}}" + strings.Repeat("{{len $.Name}}{{.}}", 100) + "{{end}}",
		"many facets":    "x {{range .Tags}}" + strings.Repeat("{{link . $.Link}}", 50) + "{{end}}",
		"one long facet": `{{link "` + strings.Repeat("x", 400) + `" .Link}}`,
	} {
		parsed := mustTemplate(t, text)
		record, err := parsed.Compose(Facts{
			Repository: strings.Repeat("a", 255), Tags: numbered("v1.%d", 300), Link: "https://example.com/",
		}, nil, when)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		checkRecord(t, record)
		if list := facets(record); len(list) > maxFacets || name == "one long facet" && len(list) > 0 {
			t.Errorf("%s: got %d facets", name, len(list))
		}
		if strings.Contains(text, "Tags") {
			continue // fits without tags
		}
		if !strings.HasSuffix(record["text"].(string), ellipsis) {
			t.Errorf("%s: got %q", name, record["text"])
		}
	}
}

// The order in which facts are left out is that of the default text.
func TestTemplateShortening(t *testing.T) {
	t.Parallel()
	parsed := mustTemplate(t, fullTemplate)
	facts := Facts{
		Repository: "oss/app", Tags: append([]string{"v1.2.3"}, numbered("t%d", 9)...), Platforms: numbered("linux/arm/v%d", 9),
		Reference: "r.example/oss/app:v1.2.3", Hashtags: []string{"one", "two"}, Mention: Mention{"a.example.com", "did:web:a.example.com"},
	}
	texts := func(padding int) string {
		f := facts
		f.Digest = strings.Repeat("d", padding)
		record, err := parsed.Compose(f, nil, when)
		if err != nil {
			t.Fatal(err)
		}
		checkRecord(t, record)
		return record["text"].(string)
	}
	// Each of them is in the text until all before it are gone.
	marks := []string{"t0", "v4", "$ docker", "#two", "#one", "@a.example.com", "oss/app:v1.2.3"}
	last := 0
	for padding := range 290 {
		text, gone := texts(padding), 0
		for gone < len(marks) && !strings.Contains(text, marks[gone]) {
			gone++
		}
		for _, mark := range marks[gone:] {
			if !strings.Contains(text, mark) {
				t.Fatalf("%q is gone before %q: %q", mark, marks[gone], text)
			}
		}
		last = max(last, gone)
	}
	if last != len(marks) {
		t.Errorf("only %q are left out", marks[:last])
	}
}

func TestTemplateFailure(t *testing.T) {
	t.Parallel()
	parsed := mustTemplate(t, "{{if gt .Layers 50}}{{index .Tags 5}}{{end}}{{.Name}}")
	if _, err := parsed.Compose(Facts{Repository: "app", Tags: []string{"v1"}, Layers: 51}, nil, when); !errors.Is(err, ErrTemplate) {
		t.Errorf("got %v, want %v", err, ErrTemplate)
	}
	if _, err := parsed.Compose(Facts{Repository: "app"}, nil, when); !errors.Is(err, errNoName) {
		t.Errorf("got %v, want %v", err, errNoName)
	}
	if got := parsed.Sample(); got != "oss/app" {
		t.Errorf("got the sample %q", got)
	}
}

func TestHashtagsAndMentions(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"containers": true, "été": true, "日本": true, "a_1": true, "v1": true,
		"": false, "#a": false, "a b": false, "a-b": false, "123": false, "_": false, "a\u200db": false, "\xff": false,
		strings.Repeat("a", 64): true, strings.Repeat("a", 65): false, "a" + strings.Repeat("\u0301", 400): false,
	} {
		if err := CheckHashtag(name); (err == nil) != want {
			t.Errorf("CheckHashtag(%q): got %v, want valid: %v", name, err, want)
		}
	}
	for m, want := range map[Mention]bool{
		{"alice.example.com", "did:web:alice.example.com"}: true,
		{"alice", "did:web:alice.example.com"}:             false,
		{"alice.example.com", "alice.example.com"}:         false,
		{}: false,
	} {
		if err := CheckMention(m); (err == nil) != want {
			t.Errorf("CheckMention(%v): got %v, want valid: %v", m, err, want)
		}
	}
}

// checkRecord checks the guarantees of every post, with any facets.
func checkRecord(t *testing.T, record map[string]any) {
	t.Helper()
	validate(t, record)
	if _, err := Encode(record); err != nil {
		t.Error(err)
	}
	text := record["text"].(string)
	if n := graphemes(text); n > 300 || len(text) > 3000 || !utf8.ValidString(text) || strings.ContainsFunc(text, isMark) || strings.TrimSpace(text) == "" {
		t.Errorf("got %d graphemes in %d bytes: %q", n, len(text), text)
	}
	all, _ := record["facets"].([]any)
	last := 0
	for _, facet := range all {
		start, end := span(facet)
		if start < last || end <= start || end > len(text) {
			t.Fatalf("facet [%d,%d) after %d in a text of %d bytes", start, end, last, len(text))
		}
		if !utf8.RuneStart(text[start]) || end < len(text) && !utf8.RuneStart(text[end]) {
			t.Errorf("facet [%d,%d) splits a rune of %q", start, end, text)
		}
		last = end
	}
}
