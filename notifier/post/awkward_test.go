package post

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// awkward returns facts that a post has to be able to show. Names are valid for a registry unless
// the case is about others.
func awkward() map[string]Facts {
	base := Facts{
		Repository: "oss/app", Tags: []string{"v1.2.3"}, Size: 45_230_000, Layers: 7, Platforms: []string{"linux/amd64"},
		Digest:    "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		Reference: "registry.example.com/oss/app:v1.2.3", Link: "https://registry.example.com/oss/app",
		Mention: Mention{"alice.example.com", "did:web:alice.example.com"}, Hashtags: []string{"containers"},
	}
	all := map[string]Facts{}
	add := func(name string, change func(f *Facts)) {
		f := base
		change(&f)
		all[name] = f
	}
	title := func(name, val string) {
		add(name, func(f *Facts) { f.Annotations = map[string]string{titleKey: val} })
	}
	family := "👨‍👩‍👧‍👦"
	add("emoji in the name", func(f *Facts) { f.Repository = "équipe/" + family + "🏳️‍🌈🇩🇪" })
	add("only emoji", func(f *Facts) { f.Repository, f.Tags = strings.Repeat(family, 300), []string{"🚀"} })
	add("right to left", func(f *Facts) { f.Repository = "فريق/تطبيق"; f.Tags = []string{"إصدار-١", "שלום"} })
	add("bidirectional controls", func(f *Facts) {
		f.Repository = "oss/\u202eppa\u202c\u2066x\u2069\u200f"
		f.Tags = []string{"v1\u202e3.2"}
	})
	add("combining marks", func(f *Facts) { f.Repository = "cafe\u0301/a\u0300\u0301\u0302" })
	add("a name that begins with a combining mark", func(f *Facts) { f.Repository = "\u0301app" })
	add("a thousand combining marks", func(f *Facts) { f.Repository = "a" + strings.Repeat("\u0301", 1000) })
	add("one grapheme that does not fit", func(f *Facts) { f.Repository = "a" + strings.Repeat("\u0301", 4000) })
	add("tag of 128 characters", func(f *Facts) { f.Tags = []string{strings.Repeat("t", 128)} })
	add("ten tags of 128 characters", func(f *Facts) {
		f.Tags = nil
		for i := range 10 {
			f.Tags = append(f.Tags, strings.Repeat(string(rune('a'+i)), 128))
		}
	})
	add("name of 255 characters", func(f *Facts) { f.Repository = "first/" + strings.Repeat("n", 244) + "/last" })
	add("longest name and tag", func(f *Facts) {
		f.Repository, f.Tags = strings.Repeat("n", 255), []string{strings.Repeat("t", 128), "latest"}
	})
	add("tag of 400 characters", func(f *Facts) { f.Tags = []string{strings.Repeat("t", 400)} })
	add("a thousand tags", func(f *Facts) { f.Tags = numbered("v%d", 1000) })
	add("equal tags", func(f *Facts) { f.Tags = []string{"v1", "v1", "v1\n", "v1"} })
	add("HTML", func(f *Facts) { f.Repository = `<b onclick="alert(1)">oss</b>&amp;app`; f.Tags = []string{"<script>"} })
	add("Markdown", func(f *Facts) { f.Repository = "**oss**/[app](https://evil.example)" })
	add("newlines", func(f *Facts) {
		f.Repository = "oss/app\r\n\r\nFree\u2028coins\u2029\u0085"
		f.Tags = []string{"v1\n\n\n2"}
	})
	add("control characters", func(f *Facts) { f.Repository = "oss\x00/a\x1b[31mpp\x7f"; f.Tags = []string{"\bv1\t2"} })
	add("invalid UTF-8", func(f *Facts) { f.Repository = "oss/\xff\xfeapp"; f.Tags = []string{"v\xc3", "\xed\xa0\x80"} })
	add("marks of facets", func(f *Facts) {
		f.Repository = "\uFDD00\uFDD1oss\uFDD2/app"
		f.Tags = []string{"\uFDD2v1\uFFFE\U0001FFFF"}
	})
	add("words that look like facets", func(f *Facts) {
		f.Repository = "@bob.example.com/#free"
		f.Tags = []string{"https://evil.example", "#one"}
	})
	add("template in the name", func(f *Facts) { f.Repository = "{{.Link}}/{{link \"a\" \"b\"}}" })
	add("no platform", func(f *Facts) { f.Platforms = nil })
	add("forty platforms", func(f *Facts) { f.Platforms, f.Images = numbered("linux/arm/v%d", 40), 40 })
	add("unknown platforms", func(f *Facts) { f.Platforms = []string{"unknown/unknown", "linux/evil", "/", "", "linux"} })
	add("no layers", func(f *Facts) { f.Layers = 0 })
	add("negative numbers", func(f *Facts) { f.Layers, f.Size, f.Images, f.MoreVersions = -1, -1, -1, -1 })
	add("largest numbers", func(f *Facts) {
		f.Layers, f.Size, f.MoreVersions = math.MaxInt, math.MaxInt64, math.MaxInt
	})
	add("only a name", func(f *Facts) { *f = Facts{Repository: f.Repository, Tags: f.Tags} })
	add("no link", func(f *Facts) { f.Link = "" })
	add("link with other characters", func(f *Facts) { f.Link = `https://bücher.example/日本?q="<a b>"#ü` })
	add("first of several versions", func(f *Facts) { f.First, f.MoreVersions = true, 2 })
	add("eight hashtags of 64 characters", func(f *Facts) {
		f.Hashtags = nil
		for i := range 12 {
			f.Hashtags = append(f.Hashtags, strings.Repeat(string(rune('a'+i)), 64))
		}
	})
	add("hashtags in other scripts", func(f *Facts) { f.Hashtags = []string{"日本", "контейнеры", "कंटेनर", "été"} })
	add("invalid hashtags", func(f *Facts) { f.Hashtags = []string{"#a", "a b", "1", "", "a\n", "ok", "ok"} })
	add("invalid mention", func(f *Facts) { f.Mention = Mention{"alice\n.example.com", "did:web:alice.example.com"} })
	add("mention of 253 characters", func(f *Facts) {
		f.Mention.Handle = strings.Repeat(strings.Repeat("a", 62)+".", 3) + strings.Repeat("b", 60) + ".c"
	})
	title("annotation with a homoglyph link", "get it at https://gіthub.com/oss/app (і is Cyrillic)")
	title("annotation with a mention and a hashtag", "@bob.example.com did:plc:ewvi7nxzyoun6zhxrhs64oiz #free")
	title("annotation of several lines", "one\ntwo\r\n\r\nthree\u2028four")
	title("long annotation", strings.Repeat("word ", 1000))
	title("annotation of combining marks", "a"+strings.Repeat("\u0301", 5000))
	title("annotation with bidirectional controls", "\u202etxt.exe\u202c \u2067x\u2069")
	title("annotation with marks of facets", "\uFDD00\uFDD1free\uFDD2 \uFDD0")
	title("annotation with HTML and a template", `<img src=x> {{link "a" "https://evil.example"}}`)
	return all
}

func TestAwkward(t *testing.T) {
	t.Parallel()
	parsed := mustTemplate(t, fullTemplate)
	for name, facts := range awkward() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			standard, err := Compose(facts, []string{"en"}, when)
			if err != nil {
				t.Fatal(err)
			}
			checkRecord(t, standard)
			checkTargets(t, standard, facts)
			written, err := parsed.Compose(facts, []string{"en"}, when)
			if err != nil {
				t.Fatal(err)
			}
			checkRecord(t, written)
			checkTargets(t, written, facts)
			golden(t, "awkward "+name, map[string]any{"default": standard, "template": written})
		})
	}
}

// checkTargets checks that facets have only targets that come from the configuration.
func checkTargets(t *testing.T, record map[string]any, f Facts) {
	t.Helper()
	link, _ := asciiLink(f.Link)
	configured := append([]string{link, f.Mention.DID}, f.Hashtags...)
	all, _ := record["facets"].([]any)
	for _, facet := range all {
		if !slices.Contains(configured, target(facet)) {
			t.Errorf("got a facet with the target %q", target(facet))
		}
	}
}

func FuzzTemplate(f *testing.F) {
	add := func(text string, facts Facts) {
		f.Add(text, facts.Repository, strings.Join(facts.Tags, "\x1f"), facts.Size, facts.Layers, strings.Join(facts.Platforms, "\x1f"),
			facts.Reference, facts.Link, strings.Join(facts.Hashtags, "\x1f"), facts.Mention.Handle, facts.Annotations[titleKey])
	}
	for _, facts := range awkward() {
		add(fullTemplate, facts)
	}
	for _, text := range []string{"{{.Name}}", `{{link "a" .Link}}{{hashtag .Tag}}`, "{{range .Tags}}{{.}}{{else}}x{{end}}", `{{$x := link .Name .Link}}{{print $x $x}}`} {
		add(text, awkward()["HTML"])
	}
	f.Fuzz(func(t *testing.T, text, repository, tags string, size int64, layers int, platforms, reference, link, hashtags, handle, title string) {
		parsed, err := ParseTemplate(text, []string{titleKey})
		if err != nil {
			return
		}
		facts := Facts{
			Repository: repository, Tags: strings.Split(tags, "\x1f"), Size: size, Layers: layers, Platforms: strings.Split(platforms, "\x1f"),
			Reference: reference, Link: link, Hashtags: strings.Split(hashtags, "\x1f"), Mention: Mention{handle, "did:web:alice.example.com"},
			Annotations: map[string]string{titleKey: title},
		}
		start := time.Now()
		record, err := parsed.Compose(facts, nil, when)
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("took %s", took)
		}
		again, errAgain := parsed.Compose(facts, nil, when)
		if !reflect.DeepEqual(record, again) || fmt.Sprint(err) != fmt.Sprint(errAgain) {
			t.Fatalf("the same facts twice: got %v, %v, then %v, %v", record, err, again, errAgain)
		}
		if err == nil {
			checkRecord(t, record)
		}
	})
}
