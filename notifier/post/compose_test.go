package post

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/lexicon"
	"github.com/distribution/reference"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var when = time.Date(2031, 5, 6, 7, 8, 9, 123_456_789, time.FixedZone("", 3600))

func numbered(format string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf(format, i)
	}
	return out
}

var cases = []struct {
	name  string
	facts Facts
	langs []string
}{
	{"plain", Facts{
		Repository: "oss/app", Tags: []string{"v1.2.3"}, Size: 45_230_000, Layers: 7,
		Platforms: []string{"linux/amd64"}, Reference: "registry.example.com/oss/app:v1.2.3",
	}, []string{"en"}},
	{"link and other tags", Facts{
		Repository: "oss/app", Tags: []string{"v1.2.3", "v1.2", "v1", "latest"}, Size: 45_230_000, Layers: 7,
		Platforms: []string{"linux/amd64"}, Reference: "registry.example.com/oss/app:v1.2.3",
		Link: "https://registry.example.com/oss/app",
	}, []string{"en", "pt-BR"}},
	{"index", Facts{
		Repository: "oss/app", Tags: []string{"v1.2.3"}, Size: 91_000_000,
		Platforms: []string{"linux/amd64", "linux/arm64", "linux/arm/v7", "linux/s390x", "linux/riscv64", "unknown/unknown"},
		Reference: "registry.example.com/oss/app:v1.2.3",
	}, nil},
	{"by digest", Facts{
		Repository: "app", Tags: []string{"1.0.0"}, Size: 1, Layers: 1,
		Digest:    "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		Reference: "localhost:5000/app@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
	}, nil},
	{"only the name is known", Facts{Repository: "app", Tags: []string{"1.0.0"}}, nil},
	{"other tags are shortened", Facts{
		Repository: "oss/app", Tags: append([]string{"v1.2.3"}, numbered("v1.2.3-build.%04d", 40)...), Size: 45_230_000, Layers: 7,
		Platforms: []string{"linux/amd64"}, Reference: "registry.example.com/oss/app:v1.2.3",
	}, nil},
	{"other tags are omitted", Facts{
		Repository: "oss/app", Tags: append([]string{"v1.2.3"}, strings.Repeat("a", 128), strings.Repeat("b", 128)), Size: 45_230_000, Layers: 7,
		Platforms: []string{"linux/amd64"}, Reference: strings.Repeat("r", 120) + ".example.com/oss/app:v1.2.3",
	}, nil},
	{"platforms after the third are omitted", Facts{
		Repository: "oss/app", Tags: []string{"v1.2.3", strings.Repeat("a", 128)}, Size: 45_230_000,
		Platforms: numbered("linux/arm/v%d", 12), Reference: strings.Repeat("r", 80) + ".example.com/oss/app:v1.2.3",
	}, nil},
	{"the pull command is omitted", Facts{
		Repository: strings.Repeat("team/", 20) + "app", Tags: []string{"v1.2.3", "latest"}, Size: 45_230_000, Layers: 3,
		Platforms: []string{"linux/amd64", "linux/arm64"}, Reference: "registry.example.com/" + strings.Repeat("team/", 20) + "app:v1.2.3-" + strings.Repeat("x", 50),
		Link: "https://registry.example.com/app",
	}, nil},
	{"the name is shortened", Facts{
		Repository: "first/" + strings.Repeat("team/", 48) + "last", Tags: []string{"v1.2.3-" + strings.Repeat("x", 100), "latest"}, Size: 45_230_000, Layers: 3,
		Platforms: []string{"linux/amd64", "linux/arm64"}, Reference: "registry.example.com/app:v1.2.3",
		Link: "https://registry.example.com/app",
	}, nil},
	{"size of the largest", Facts{
		Repository: "oss/app", Tags: []string{"v1.2.3"}, Images: 2, Size: 45_230_000, Layers: 7,
		Platforms: []string{"linux/amd64", "linux/arm64"}, Reference: "registry.example.com/oss/app:v1.2.3",
	}, nil},
	{"first version", Facts{
		Repository: "oss/app", Tags: []string{"v1.0.0", "latest"}, Size: 45_230_000, Layers: 7, First: true,
		Platforms: []string{"linux/amd64"}, Reference: "registry.example.com/oss/app:v1.0.0",
	}, nil},
	{"three more versions", Facts{
		Repository: "oss/app", Tags: []string{"v1.2.3", "latest"}, Size: 45_230_000, Layers: 7, MoreVersions: 3,
		Platforms: []string{"linux/amd64"}, Reference: "registry.example.com/oss/app:v1.2.3",
	}, nil},
	{"the first and one more version", Facts{Repository: "oss/app", Tags: []string{"v1.0.0"}, First: true, MoreVersions: 1}, nil},
	{"not ASCII", Facts{
		Repository: "équipe/👩‍🚀", Tags: []string{"v1"}, Size: 999_999, Layers: 2,
		Reference: "例え.example/équipe/👩‍🚀:v1", Link: "https://xn--r8jz45g.example/a?b=c#d",
	}, nil},
	{"hostile facts", Facts{
		Repository: "oss/app\n\nFree coins", Tags: []string{"v1\u202e\x00", "v1", "\n", "two\r\nlines"}, Size: -1, Layers: -1,
		Platforms: []string{"linux/amd64", "visit https://evil.example", "LINUX/amd64", "linux/amd64", "a/b/c/d", "linux/\xff", "free/evil_coins/evil.com", "linux/arm64/evil.com", "linux/"},
		Reference: "h/oss/app\u2028:v1\xff",
	}, nil},
}

func TestComposeGolden(t *testing.T) {
	t.Parallel()
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			record, err := Compose(tc.facts, tc.langs, when)
			if err != nil {
				t.Fatal(err)
			}
			checkPost(t, record, tc.facts.Link)
			golden(t, tc.name, record)
		})
	}
}

// golden compares a post with its golden file.
func golden(t *testing.T, name string, record map[string]any) {
	t.Helper()
	got, err := json.MarshalIndent(record, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	file := filepath.Join("testdata", "golden", strings.ReplaceAll(name, " ", "-")+".json")
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; go test ./notifier/post -update writes the golden files", err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// Each step of shortening happens in one of the golden cases, in the documented order.
func TestShorteningOrder(t *testing.T) {
	t.Parallel()
	steps := []struct {
		name                         string
		tags, platforms, pull, named bool // complete
	}{
		{"link and other tags", true, true, true, true},
		{"other tags are shortened", false, true, true, true},
		{"other tags are omitted", false, true, true, true},
		{"platforms after the third are omitted", false, false, true, true},
		{"the pull command is omitted", false, true, false, true},
		{"the name is shortened", false, true, false, false},
	}
	for _, step := range steps {
		for _, tc := range cases {
			if tc.name != step.name {
				continue
			}
			record, err := Compose(tc.facts, nil, when)
			if err != nil {
				t.Fatalf("%s: %v", tc.name, err)
			}
			text := record["text"].(string)
			first, rest, _ := strings.Cut(text, "\n")
			if got := strings.Contains(first, strings.Join(tc.facts.Tags[1:], ", ")); got != step.tags {
				t.Errorf("%s: all other tags shown: got %v, want %v", step.name, got, step.tags)
			}
			if got := strings.Contains(rest, strings.Join(tc.facts.Platforms, ", ")); got != step.platforms {
				t.Errorf("%s: all platforms shown: got %v, want %v", step.name, got, step.platforms)
			}
			if got := strings.HasSuffix(text, "\n\ndocker pull "+tc.facts.Reference); got != step.pull {
				t.Errorf("%s: pull command shown: got %v, want %v", step.name, got, step.pull)
			}
			if got := strings.HasPrefix(text, tc.facts.Repository+":"+tc.facts.Tags[0]+" was pushed"); got != step.named {
				t.Errorf("%s: whole name shown: got %v, want %v", step.name, got, step.named)
			}
		}
	}
}

// A text of exactly 300 graphemes is complete, a longer one is shortened.
func TestComposeAtTheLimit(t *testing.T) {
	t.Parallel()
	f := Facts{Repository: "app", Tags: []string{"v1"}, Layers: 2, Reference: "h/"}
	full := func() string {
		b := f.write(cut{pull: true, name: 3})
		return b.text.String()
	}
	f.Reference += strings.Repeat("x", maxGraphemes-graphemes(full()))
	for _, tc := range []struct {
		more string
		want bool
	}{{"", true}, {"x", false}} {
		f := f
		f.Reference += tc.more
		record, err := Compose(f, nil, when)
		if err != nil {
			t.Fatal(err)
		}
		checkPost(t, record, "")
		if got := strings.Contains(record["text"].(string), "docker pull"); got != tc.want {
			t.Errorf("with %q more: pull command shown: got %v, want %v", tc.more, got, tc.want)
		}
	}
}

// The longest names that a registry accepts, with all other facts at their longest,
// have a post.
func TestComposeLongestNames(t *testing.T) {
	t.Parallel()
	record, err := Compose(Facts{
		Repository: strings.Repeat("a", 255), Tags: append([]string{strings.Repeat("t", 128)}, numbered("tag%d", 2000)...),
		Size: math.MaxInt64, Layers: math.MaxInt,
		Platforms: slices.Concat(numbered("wasip1/mips64le/v9.%d", 2), []string{"dragonfly/mips64le/v99.9"}, numbered("linux/arm/v%d", 97)),
		Reference: strings.Repeat("r", 600), Link: "https://h.example/",
	}, nil, when)
	if err != nil {
		t.Fatal(err)
	}
	checkPost(t, record, "https://h.example/")
	text := record["text"].(string)
	if !strings.Contains(text, "…") || !strings.HasSuffix(text, "dragonfly/mips64le/v99.9 and 97 more") {
		t.Errorf("got %q, want a shortened name and three of 100 platforms", text)
	}
}

// The limit in bytes applies when few graphemes have many bytes.
func TestComposeManyBytes(t *testing.T) {
	t.Parallel()
	family := "👨‍👩‍👧‍👦" // one grapheme, 25 bytes
	record, err := Compose(Facts{Repository: strings.Repeat(family, 150), Tags: []string{"v1"}, Link: "https://h.example/"}, nil, when)
	if err != nil {
		t.Fatal(err)
	}
	checkPost(t, record, "https://h.example/")
	text := record["text"].(string)
	if len(text) < maxBytes-2*len(family) || !strings.Contains(text, family+"…"+family) {
		t.Errorf("got %d bytes, want a name shortened between graphemes to just below %d: %q", len(text), maxBytes, text)
	}
}

func TestComposeErrors(t *testing.T) {
	t.Parallel()
	ok := Facts{Repository: "app", Tags: []string{"v1"}}
	with := func(change func(*Facts)) Facts { f := ok; change(&f); return f }
	for _, tc := range []struct {
		name  string
		facts Facts
		langs []string
		at    time.Time
		is    error
		text  string
	}{
		{"no repository", with(func(f *Facts) { f.Repository = "" }), nil, when, errNoName, ""},
		{"no tag", with(func(f *Facts) { f.Tags = nil }), nil, when, errNoName, ""},
		{"tag without visible characters", with(func(f *Facts) { f.Tags = []string{"\n\x00"} }), nil, when, errNoName, ""},
		{"link without scheme", with(func(f *Facts) { f.Link = "example.com/app" }), nil, when, nil, `link "example.com/app"`},
		{"link that runs code", with(func(f *Facts) { f.Link = "javascript:alert(1)" }), nil, when, nil, "want http"},
		{"link without host", with(func(f *Facts) { f.Link = "https:///app" }), nil, when, nil, "want http"},
		{"link with a space in its host", with(func(f *Facts) { f.Link = "https://exam ple.com/" }), nil, when, nil, "link"},
		{"four languages", ok, []string{"en", "de", "fr", "it"}, when, nil, "4 languages"},
		{"invalid language", ok, []string{"English!"}, when, nil, `"English!" is not a language`},
		{"year 10000", ok, nil, time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), nil, "time of the post"},
	} {
		record, err := Compose(tc.facts, tc.langs, tc.at)
		if err == nil {
			t.Errorf("%s: got %v, want an error", tc.name, record)
			continue
		}
		if tc.is != nil && !errors.Is(err, tc.is) || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s: got %q, want %v %q", tc.name, err, tc.is, tc.text)
		}
	}
}

func FuzzCompose(f *testing.F) {
	for _, tc := range cases {
		f.Add(tc.facts.Repository, strings.Join(tc.facts.Tags, "\x1f"), tc.facts.Size, tc.facts.Layers,
			strings.Join(tc.facts.Platforms, "\x1f"), tc.facts.Reference, tc.facts.Link, when.UnixMilli())
	}
	f.Fuzz(func(t *testing.T, repository, tags string, size int64, layers int, platforms, reference, link string, ms int64) {
		facts := Facts{
			Repository: repository, Tags: strings.Split(tags, "\x1f"), Size: size, Layers: layers,
			Platforms: strings.Split(platforms, "\x1f"), Reference: reference, Link: link,
		}
		at := time.UnixMilli(ms % 4_000_000_000_000) // years 1843 to 2096
		record, err := Compose(facts, nil, at)
		again, errAgain := Compose(facts, nil, at)
		if !reflect.DeepEqual(record, again) || fmt.Sprint(err) != fmt.Sprint(errAgain) {
			t.Fatalf("the same facts twice: got %v, %v, then %v, %v", record, err, again, errAgain)
		}
		if err != nil {
			if validName(repository, facts.Tags[0]) && (link == "" || CheckLink(link) == nil) {
				t.Fatalf("valid names without a post: %v", err)
			}
			return
		}
		checkPost(t, record, link)
	})
}

// validName reports whether the registry accepts a repository with this tag.
func validName(repository, tag string) bool {
	named, err := reference.WithName(repository)
	if err == nil {
		_, err = reference.WithTag(named, tag)
	}
	return err == nil
}

// checkPost checks the guarantees of every post.
func checkPost(t *testing.T, record map[string]any, link string) {
	t.Helper()
	validate(t, record)
	text := record["text"].(string)
	if n := graphemes(text); n > 300 || len(text) > 3000 || !utf8.ValidString(text) {
		t.Errorf("got %d graphemes in %d bytes (valid UTF-8: %v): %q", n, len(text), utf8.ValidString(text), text)
	}
	if n := strings.Count(text, "\n"); n > 3 {
		t.Errorf("got %d line breaks, want at most 3: %q", n, text)
	}
	facets, _ := record["facets"].([]any)
	if want := min(1, len(link)); len(facets) != want {
		t.Errorf("got %d facets, want %d", len(facets), want)
	}
	last := 0
	for _, facet := range facets {
		start, end := span(facet)
		if start < last || end <= start || end > len(text) {
			t.Fatalf("facet [%d,%d) after %d in a text of %d bytes", start, end, last, len(text))
		}
		if !utf8.RuneStart(text[start]) || end < len(text) && !utf8.RuneStart(text[end]) {
			t.Errorf("facet [%d,%d) splits a rune of %q", start, end, text)
		}
		if !strings.HasPrefix(text[end:], " was pushed") {
			t.Errorf("facet on %q, want it on the name", text[start:end])
		}
		last = end
	}
}

func span(facet any) (start, end int) {
	index := facet.(map[string]any)["index"].(map[string]any)
	return int(index["byteStart"].(int64)), int(index["byteEnd"].(int64))
}

// catalog returns the schemas of the network, from the indigo module.
var catalog = sync.OnceValues(func() (lexicon.Catalog, error) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/bluesky-social/indigo").Output()
	if err != nil {
		return nil, fmt.Errorf("find indigo's lexicons: %w", err)
	}
	cat := lexicon.NewBaseCatalog()
	for _, part := range []string{"app/bsky/feed", "app/bsky/richtext", "app/bsky/embed", "com/atproto/label", "com/atproto/repo"} {
		if err := cat.LoadDirectory(filepath.Join(strings.TrimSpace(string(dir)), "lexicons", part)); err != nil {
			return nil, err
		}
	}
	return cat, nil
})

// validate validates the record as a PDS does: as CBOR, by its schema.
func validate(t *testing.T, record map[string]any) {
	t.Helper()
	cat, err := catalog()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := atdata.MarshalCBOR(record)
	if err != nil {
		t.Fatalf("encode %v: %v", record, err)
	}
	back, err := atdata.UnmarshalCBOR(raw)
	if err != nil {
		t.Fatalf("decode %v: %v", record, err)
	}
	if err := lexicon.ValidateRecord(cat, back, "app.bsky.feed.post", 0); err != nil {
		t.Errorf("not a valid post: %v: %v", err, record)
	}
}
