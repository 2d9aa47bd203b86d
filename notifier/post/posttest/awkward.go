// Package posttest has facts for tests of everything that shows an image.
package posttest

import (
	"fmt"
	"math"
	"strings"

	"github.com/tidings-dev/tidings/notifier/post"
)

// TitleKey is the annotation that some of the facts have.
const TitleKey = "org.opencontainers.image.title"

const hash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func numbered(format string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf(format, i)
	}
	return out
}

func layers(n int, size func(i int) int64) []int64 {
	out := make([]int64, n)
	for i := range out {
		out[i] = size(i)
	}
	return out
}

// Awkward returns facts that posts, cards, pages and feeds have to be able to show, by what is
// awkward about them. Names are valid for a registry unless the case is about others.
func Awkward() map[string]post.Facts {
	base := post.Facts{
		Repository: "oss/app", Tags: []string{"v1.2.3"}, Size: 45_230_000, Layers: 7, Platforms: []string{"linux/amd64"},
		Digest: "sha256:" + hash, LayerSizes: layers(7, func(i int) int64 { return 30_000_000 >> i }),
		Reference: "registry.example.com/oss/app:v1.2.3", Link: "https://registry.example.com/oss/app",
		Mention: post.Mention{Handle: "alice.example.com", DID: "did:web:alice.example.com"}, Hashtags: []string{"containers"},
	}
	all := map[string]post.Facts{}
	add := func(name string, change func(f *post.Facts)) {
		f := base
		change(&f)
		all[name] = f
	}
	names(add)
	versions(add)
	contents(add)
	annotations(add)
	return all
}

// An adder adds the facts of a typical image with a change.
type adder func(name string, change func(f *post.Facts))

// names have awkward names of repositories.
func names(add adder) {
	family := "👨‍👩‍👧‍👦"
	add("emoji in the name", func(f *post.Facts) { f.Repository = "équipe/" + family + "🏳️‍🌈🇩🇪" })
	add("only emoji", func(f *post.Facts) { f.Repository, f.Tags = strings.Repeat(family, 300), []string{"🚀"} })
	add("right to left", func(f *post.Facts) {
		f.Repository = "فريق/تطبيق"
		f.Tags = []string{"إصدار-١", "שלום"}
	})
	add("bidirectional controls", func(f *post.Facts) {
		f.Repository = "oss/\u202eppa\u202c\u2066x\u2069\u200f"
		f.Tags = []string{"v1\u202e3.2"}
	})
	add("combining marks", func(f *post.Facts) { f.Repository = "cafe\u0301/a\u0300\u0301\u0302" })
	add("a name that begins with a combining mark", func(f *post.Facts) { f.Repository = "\u0301app" })
	add("a thousand combining marks", func(f *post.Facts) { f.Repository = "a" + strings.Repeat("\u0301", 1000) })
	add("one grapheme that does not fit", func(f *post.Facts) { f.Repository = "a" + strings.Repeat("\u0301", 4000) })
	add("name of 255 characters", func(f *post.Facts) { f.Repository = "first/" + strings.Repeat("n", 244) + "/last" })
	add("longest name and tag", func(f *post.Facts) {
		f.Repository, f.Tags = strings.Repeat("n", 255), []string{strings.Repeat("t", 128), "latest"}
	})
	add("HTML", func(f *post.Facts) {
		f.Repository = `<b onclick="alert(1)">oss</b>&amp;app`
		f.Tags = []string{"<script>"}
	})
	add("Markdown", func(f *post.Facts) { f.Repository = "**oss**/[app](https://evil.example)" })
	add("newlines", func(f *post.Facts) {
		f.Repository = "oss/app\r\n\r\nFree\u2028coins\u2029\u0085"
		f.Tags = []string{"v1\n\n\n2"}
	})
	add("control characters", func(f *post.Facts) { f.Repository = "oss\x00/a\x1b[31mpp\x7f"; f.Tags = []string{"\bv1\t2"} })
	add("invalid UTF-8", func(f *post.Facts) { f.Repository = "oss/\xff\xfeapp"; f.Tags = []string{"v\xc3", "\xed\xa0\x80"} })
	add("marks of facets", func(f *post.Facts) {
		f.Repository = "\uFDD00\uFDD1oss\uFDD2/app"
		f.Tags = []string{"\uFDD2v1\uFFFE\U0001FFFF"}
	})
	add("words that look like facets", func(f *post.Facts) {
		f.Repository = "@bob.example.com/#free"
		f.Tags = []string{"https://evil.example", "#one"}
	})
	add("template in the name", func(f *post.Facts) { f.Repository = "{{.Link}}/{{link \"a\" \"b\"}}" })
	add("Chinese Japanese and Korean", func(f *post.Facts) {
		f.Repository, f.Tags = "工具/日本語アプリ-컨테이너", []string{"版本一", "最新", "최신"}
	})
	add("Devanagari", func(f *post.Facts) {
		f.Repository, f.Tags = "टीम/क्षत्रिय-कंटेनर", []string{"संस्करण-१"}
	})
	add("Thai", func(f *post.Facts) {
		f.Repository, f.Tags = "ทีม/แอปน้ำผึ้ง", []string{"รุ่น๑"}
	})
	add("Cyrillic and Greek", func(f *post.Facts) {
		f.Repository, f.Tags = "команда/приложение", []string{"έκδοση-2"}
	})
	add("homoglyphs in the name", func(f *post.Facts) { f.Repository = "\u043ess/\u0430\u0440\u0440" })
	add("zero-width characters", func(f *post.Facts) {
		f.Repository = "oss/a\u200dp\u200cp\u200b\u2060\ufeff"
		f.Tags = []string{"v1\u200d.2", "v1.2"}
	})
	add("name of one character", func(f *post.Facts) { f.Repository, f.Tags = "a", []string{"1"} })
	add("name of many parts", func(f *post.Facts) { f.Repository = strings.Repeat("team/", 40) + "app" })
	add("name of another registry", func(f *post.Facts) { f.Repository = "mirror/ghcr.io/owner/kube-prometheus-stack" })
	add("name of wide letters", func(f *post.Facts) {
		f.Repository, f.Tags = "oss/"+strings.Repeat("W", 60), []string{strings.Repeat("M", 60)}
	})
	add("name of separators", func(f *post.Facts) { f.Repository, f.Tags = "a--b__c.d---e/f__g----------h", []string{"v1..2--3__4"} })
}

// versions have awkward tags, links, mentions and hashtags.
func versions(add adder) {
	add("tag of 128 characters", func(f *post.Facts) { f.Tags = []string{strings.Repeat("t", 128)} })
	add("ten tags of 128 characters", func(f *post.Facts) {
		f.Tags = nil
		for i := range 10 {
			f.Tags = append(f.Tags, strings.Repeat(string(rune('a'+i)), 128))
		}
	})
	add("tag of 400 characters", func(f *post.Facts) { f.Tags = []string{strings.Repeat("t", 400)} })
	add("a thousand tags", func(f *post.Facts) { f.Tags = numbered("v%d", 1000) })
	add("equal tags", func(f *post.Facts) { f.Tags = []string{"v1", "v1", "v1\n", "v1"} })
	add("tag that is a digest", func(f *post.Facts) { f.Tags = []string{"sha256-" + hash} })
	add("first version", func(f *post.Facts) { f.First, f.Tags = true, []string{"v1.0.0", "latest"} })
	add("three more versions", func(f *post.Facts) { f.MoreVersions = 3 })
	add("first of several versions", func(f *post.Facts) { f.First, f.MoreVersions = true, 2 })
	add("reference by digest", func(f *post.Facts) { f.Reference = "registry.example.com/oss/app@sha256:" + hash })
	add("only a name", func(f *post.Facts) { *f = post.Facts{Repository: f.Repository, Tags: f.Tags} })
	add("no link", func(f *post.Facts) { f.Link = "" })
	add("link with other characters", func(f *post.Facts) { f.Link = `https://bücher.example/日本?q="<a b>"#ü` })
	add("eight hashtags of 64 characters", func(f *post.Facts) {
		f.Hashtags = nil
		for i := range 12 {
			f.Hashtags = append(f.Hashtags, strings.Repeat(string(rune('a'+i)), 64))
		}
	})
	add("hashtags in other scripts", func(f *post.Facts) {
		f.Hashtags = []string{"日本", "контейнеры", "कंटेनर", "été"}
	})
	add("invalid hashtags", func(f *post.Facts) { f.Hashtags = []string{"#a", "a b", "1", "", "a\n", "ok", "ok"} })
	add("invalid mention", func(f *post.Facts) {
		f.Mention = post.Mention{Handle: "alice\n.example.com", DID: "did:web:alice.example.com"}
	})
	add("mention of 253 characters", func(f *post.Facts) {
		f.Mention.Handle = strings.Repeat(strings.Repeat("a", 62)+".", 3) + strings.Repeat("b", 60) + ".c"
	})
	add("everything", func(f *post.Facts) {
		f.First, f.MoreVersions, f.Tags = true, 3, []string{"v1.2.3", "v1.2", "v1", "latest"}
		f.Platforms, f.Images = []string{"linux/amd64", "linux/arm64", "linux/arm/v7", "windows/amd64"}, 4
		f.Total, f.Hashtags = 180_920_000, []string{"containers", "opensource"}
		f.Annotations = map[string]string{TitleKey: "A small tool for large images"}
	})
}

// contents have awkward sizes, layers and platforms.
func contents(add adder) {
	add("no platform", func(f *post.Facts) { f.Platforms = nil })
	add("forty platforms", func(f *post.Facts) { f.Platforms, f.Images = numbered("linux/arm/v%d", 40), 40 })
	add("unknown platforms", func(f *post.Facts) { f.Platforms = []string{"unknown/unknown", "linux/evil", "/", "", "linux"} })
	add("no layers", func(f *post.Facts) { f.Layers = 0 })
	add("negative numbers", func(f *post.Facts) { f.Layers, f.Size, f.Images, f.MoreVersions = -1, -1, -1, -1 })
	add("largest numbers", func(f *post.Facts) {
		f.Layers, f.Size, f.MoreVersions = math.MaxInt, math.MaxInt64, math.MaxInt
	})
	add("nested index", func(f *post.Facts) {
		f.Images, f.Layers, f.Total = 14, 0, 1_230_000_000
		f.Platforms = []string{"linux/amd64", "linux/arm64", "linux/arm/v6", "linux/arm/v7", "linux/386", "linux/ppc64le", "linux/s390x"}
	})
	add("size of one byte", func(f *post.Facts) { f.Size, f.Layers, f.LayerSizes = 1, 1, []int64{1} })
	add("empty layers", func(f *post.Facts) { f.Size, f.Layers, f.LayerSizes = 0, 3, []int64{0, 0, 0} })
	add("one layer", func(f *post.Facts) { f.Layers, f.LayerSizes = 1, []int64{f.Size} })
	add("127 layers", func(f *post.Facts) {
		f.Layers, f.LayerSizes = 127, layers(127, func(i int) int64 { return int64(1+i%11) << 20 })
	})
	add("one huge layer among tiny ones", func(f *post.Facts) {
		f.Layers, f.LayerSizes = 21, layers(21, func(i int) int64 { return 40 })
		f.LayerSizes[10], f.Size = 45<<30, 45<<30+20*40
	})
	add("layers whose sizes overflow", func(f *post.Facts) { f.Layers, f.LayerSizes = 3, []int64{math.MaxInt64, -1, math.MaxInt64} })
	add("Helm chart", func(f *post.Facts) {
		f.Repository, f.Tags = "charts/ingress-nginx", []string{"4.13.2"}
		f.Size, f.Layers, f.LayerSizes, f.Platforms = 61_440, 1, []int64{61_440}, nil
	})
	add("WebAssembly module", func(f *post.Facts) {
		f.Repository, f.Platforms, f.Size, f.Layers, f.LayerSizes = "wasm/hello", []string{"wasi/wasm"}, 2_100_000, 1, []int64{2_100_000}
	})
	add("SBOM", func(f *post.Facts) {
		f.Tags = []string{"sha256-" + hash + ".sbom"}
		f.Size, f.Layers, f.LayerSizes, f.Platforms = 912_345, 1, []int64{912_345}, nil
	})
	add("large Windows image", func(f *post.Facts) {
		f.Repository, f.Tags = "windows/servercore", []string{"ltsc2025-10.0.26100.2314"}
		f.Platforms, f.Size, f.Layers, f.LayerSizes = []string{"windows/amd64"}, 5_700_000_000, 2, []int64{2_300_000_000, 3_400_000_000}
	})
}

// annotations have awkward titles.
func annotations(add adder) {
	title := func(name, val string) {
		add(name, func(f *post.Facts) { f.Annotations = map[string]string{TitleKey: val} })
	}
	title("annotation with a homoglyph link", "get it at https://gіthub.com/oss/app (і is Cyrillic)")
	title("annotation with a mention and a hashtag", "@bob.example.com did:plc:ewvi7nxzyoun6zhxrhs64oiz #free")
	title("annotation of several lines", "one\ntwo\r\n\r\nthree\u2028four")
	title("long annotation", strings.Repeat("word ", 1000))
	title("annotation of combining marks", "a"+strings.Repeat("\u0301", 5000))
	title("annotation with bidirectional controls", "\u202etxt.exe\u202c \u2067x\u2069")
	title("annotation with marks of facets", "\uFDD00\uFDD1free\uFDD2 \uFDD0")
	title("annotation with HTML and a template", `<img src=x> {{link "a" "https://evil.example"}}`)
}
