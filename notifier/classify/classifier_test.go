package classify

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/notifier/counts"
)

func digest(n int) string { return fmt.Sprintf("sha256:%064x", n) }

func newClassifier(t testing.TB, cfg Config) *Classifier {
	t.Helper()
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestClass(t *testing.T) {
	t.Parallel()
	hex := strings.Repeat("0a", 32)
	get := func(tag string, d int) Request {
		return Request{Method: "GET", Repository: "x", Tag: tag, Digest: digest(d), Kind: "image", Client: "10.0.0.1"}
	}
	with := func(q Request, change func(*Request)) Request {
		change(&q)
		return q
	}
	head := func(q Request) Request { return with(q, func(q *Request) { q.Method = http.MethodHead }) }
	index := func(q Request, children ...int) Request {
		q.Kind = "index"
		for _, n := range children {
			q.Children = append(q.Children, digest(n))
		}
		return q
	}
	from := func(q Request, client string) Request { return with(q, func(q *Request) { q.Client = client }) }

	put := func(q Request) Request { return with(q, func(q *Request) { q.Method = http.MethodPut }) }
	agent := func(q Request, agent string) Request { return with(q, func(q *Request) { q.UserAgent = agent }) }

	type step struct {
		after time.Duration // since the step before
		q     Request
		class counts.Class
		tag   string
	}
	for name, steps := range map[string][]step{
		"by tag":    {{0, get("v1", 1), counts.Pull, "v1"}},
		"by digest": {{0, get("", 1), counts.Pull, ""}},
		"index and its child": {
			{0, index(get("v1", 1), 2, 3), counts.Pull, "v1"},
			{0, get("", 2), counts.Child, ""},
			{0, get("", 3), counts.Child, ""},
			{0, get("", 1), counts.Pull, ""},
			{0, get("", 4), counts.Pull, ""},
		},
		"a child in another repository": {
			{0, index(get("v1", 1), 2), counts.Pull, "v1"},
			{0, with(get("", 2), func(q *Request) { q.Repository = "y" }), counts.Pull, ""},
		},
		"a child by its own tag": {
			{0, index(get("v1", 1), 2), counts.Pull, "v1"},
			{0, get("v1-arm64", 2), counts.Pull, "v1-arm64"},
		},
		"an index that was pushed": {
			{0, with(index(get("v1", 1), 2), func(q *Request) { q.Method = http.MethodPut }), counts.Push, "v1"},
			{0, get("", 2), counts.Child, ""},
		},
		"an index that was requested with HEAD": {
			{0, index(head(get("v1", 1)), 2), counts.Head, "v1"},
			{0, get("", 2), counts.Child, ""},
		},
		"docker pull: HEAD tag, GET digest": {
			{0, head(get("v1", 1)), counts.Head, "v1"},
			{time.Second, get("", 1), counts.Pull, "v1"},
			{9 * time.Second, get("", 1), counts.Pull, "v1"},
		},
		"docker pull of an index": {
			{0, index(head(get("v1", 1)), 2), counts.Head, "v1"},
			{time.Second, index(get("", 1), 2), counts.Pull, "v1"},
			{time.Second, get("", 2), counts.Child, ""},
		},
		"HEAD too long ago": {
			{0, head(get("v1", 1)), counts.Head, "v1"},
			{11 * time.Second, get("", 1), counts.Pull, ""},
		},
		"HEAD much too long ago": {
			{0, head(get("v1", 1)), counts.Head, "v1"},
			{time.Hour, get("", 1), counts.Pull, ""},
		},
		"HEAD in the window before": {
			{0, head(get("v0", 9)), counts.Head, "v0"},
			{9 * time.Second, head(get("v1", 1)), counts.Head, "v1"},
			{9 * time.Second, get("", 1), counts.Pull, "v1"},
			{0, get("", 9), counts.Pull, ""},
		},
		"HEAD by another client":         {{0, head(get("v1", 1)), counts.Head, "v1"}, {0, from(get("", 1), "10.0.0.2"), counts.Pull, ""}},
		"HEAD by an unknown client":      {{0, from(head(get("v1", 1)), ""), counts.Head, "v1"}, {0, from(get("", 1), ""), counts.Pull, ""}},
		"HEAD from another port":         {{0, from(head(get("v1", 1)), "10.0.0.1:1000"), counts.Head, "v1"}, {0, from(get("", 1), "10.0.0.1:1001"), counts.Pull, "v1"}},
		"HEAD from another port, IPv6":   {{0, from(head(get("v1", 1)), "[::1]:1000"), counts.Head, "v1"}, {0, from(get("", 1), "::1"), counts.Pull, "v1"}},
		"HEAD from another IPv6 address": {{0, from(head(get("v1", 1)), "fe80::1"), counts.Head, "v1"}, {0, from(get("", 1), "fe80::2"), counts.Pull, ""}},
		"HEAD of another digest":         {{0, head(get("v1", 1)), counts.Head, "v1"}, {0, get("", 2), counts.Pull, ""}},
		"HEAD by digest":                 {{0, head(get("", 1)), counts.Head, ""}, {0, get("", 1), counts.Pull, ""}},
		"last HEAD of a digest":          {{0, head(get("v1", 1)), counts.Head, "v1"}, {0, head(get("latest", 1)), counts.Head, "latest"}, {0, get("", 1), counts.Pull, "latest"}},
		"HEAD of a child, then of its index, like docker manifest and docker pull": {
			{0, head(get("v1-amd64", 2)), counts.Head, "v1-amd64"},
			{0, index(head(get("v1", 1)), 2, 3), counts.Head, "v1"},
			{time.Second, index(get("", 1), 2, 3), counts.Pull, "v1"},
			{time.Second, get("", 2), counts.Child, ""},
		},
		"HEAD of a child, then its index by tag": {
			{0, head(get("v1-amd64", 2)), counts.Head, "v1-amd64"},
			{0, index(get("v1", 1), 2, 3), counts.Pull, "v1"},
			{0, get("", 2), counts.Child, ""},
		},
		"HEAD of a child after its index": {
			{0, index(get("v1", 1), 2, 3), counts.Pull, "v1"},
			{0, head(get("v1-amd64", 2)), counts.Head, "v1-amd64"},
			{0, get("", 2), counts.Pull, "v1-amd64"},
		},
		"HEAD of a child, and its index by another client": {
			{0, head(get("v1-amd64", 2)), counts.Head, "v1-amd64"},
			{0, from(index(get("v1", 1), 2, 3), "10.0.0.2"), counts.Pull, "v1"},
			{0, get("", 2), counts.Pull, "v1-amd64"},
		},
		"helm push": {
			{0, put(get("", 1)), counts.Push, ""},
			{0, get("", 1), counts.Ignored, ""},
			{0, put(get("v1", 1)), counts.Push, "v1"},
		},
		"a child read back":                      {{0, put(get("", 2)), counts.Push, ""}, {0, put(index(get("v1", 1), 2)), counts.Push, "v1"}, {0, get("", 2), counts.Ignored, ""}},
		"read back by another client":            {{0, put(get("", 1)), counts.Push, ""}, {0, from(get("", 1), "10.0.0.2"), counts.Pull, ""}},
		"read back by another agent":             {{0, agent(put(get("", 1)), "helm"), counts.Push, ""}, {0, agent(get("", 1), "containerd"), counts.Pull, ""}},
		"read back of another digest":            {{0, put(get("", 1)), counts.Push, ""}, {0, get("", 2), counts.Pull, ""}},
		"read back too late":                     {{0, put(get("", 1)), counts.Push, ""}, {11 * time.Second, get("", 1), counts.Pull, ""}},
		"pulled by tag after a push":             {{0, put(get("v1", 1)), counts.Push, "v1"}, {0, get("v1", 1), counts.Pull, "v1"}},
		"pulled by HEAD and digest after a push": {{0, put(get("v1", 1)), counts.Push, "v1"}, {0, head(get("v1", 1)), counts.Head, "v1"}, {0, get("", 1), counts.Pull, "v1"}},
		"HEAD, push, read back":                  {{0, head(get("v1", 1)), counts.Head, "v1"}, {0, put(get("", 1)), counts.Push, ""}, {0, get("", 1), counts.Ignored, ""}},
		"by digest after a referrers tag": {
			{0, head(get("sha256-"+hex, 1)), counts.Artifact, "sha256-" + hex},
			{time.Minute, get("", 1), counts.Artifact, ""},
			{0, get("v1", 1), counts.Pull, "v1"},
			{0, with(get("", 1), func(q *Request) { q.Repository = "y" }), counts.Pull, ""},
		},
		"by digest after a push under a referrers tag": {
			{0, put(get("sha256-"+hex, 1)), counts.Push, "sha256-" + hex},
			{time.Minute, get("", 1), counts.Artifact, ""},
		},
		"artifact":                  {{0, with(get("v1", 1), func(q *Request) { q.Kind = "artifact" }), counts.Artifact, "v1"}},
		"HEAD of an artifact":       {{0, with(head(get("", 1)), func(q *Request) { q.Kind = "artifact" }), counts.Artifact, ""}},
		"referrers tag":             {{0, get("sha256-"+hex, 1), counts.Artifact, "sha256-" + hex}},
		"signature":                 {{0, get("sha256-"+hex+".sig", 1), counts.Artifact, "sha256-" + hex + ".sig"}},
		"referrers tag of sha512":   {{0, get("sha512-"+hex, 1), counts.Artifact, "sha512-" + hex}},
		"a tag that looks like one": {{0, get("sha256-"+hex[1:], 1), counts.Pull, "sha256-" + hex[1:]}},
		"not hex":                   {{0, get("sha256-"+hex[1:]+"g", 1), counts.Pull, "sha256-" + hex[1:] + "g"}},
		"artifact that is a child": {
			{0, index(get("v1", 1), 2), counts.Pull, "v1"},
			{0, with(get("", 2), func(q *Request) { q.Kind = "artifact" }), counts.Artifact, ""},
		},
		"ignored agent": {
			{0, index(with(get("v1", 1), func(q *Request) { q.UserAgent = "Aqua/1.0 (Trivy scanner)" }), 2), counts.Ignored, "v1"},
			{0, get("", 2), counts.Child, ""},
		},
		"ignored agent's HEAD": {{0, head(with(get("v1", 1), func(q *Request) { q.UserAgent = "trivy" })), counts.Ignored, "v1"}, {0, get("", 1), counts.Pull, ""}},
		"ignored actor":        {{0, with(get("v1", 1), func(q *Request) { q.Actor = "mirror-7" }), counts.Ignored, "v1"}},
		"an actor in capitals": {{0, with(get("v1", 1), func(q *Request) { q.Actor = "MIRROR-7" }), counts.Pull, "v1"}},
		"ignored before artifact": {{0, with(get("v1", 1), func(q *Request) {
			q.Kind, q.Actor = "artifact", "mirror-1"
		}), counts.Ignored, "v1"}},
		"a push of an ignored actor": {{0, with(get("v1", 1), func(q *Request) { q.Method, q.Actor = http.MethodPut, "mirror-1" }), counts.Push, "v1"}},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
			r := newClassifier(t, Config{
				IgnoreUserAgents: []string{"*trivy*"}, IgnoreActors: []string{"mirror-?"},
				Now: func() time.Time { return now },
			})
			for i, s := range steps {
				now = now.Add(s.after)
				if class, tag, _ := r.Class(s.q); class != s.class || tag != s.tag {
					t.Errorf("step %d: %s of tag %q, want %s of tag %q", i, class, tag, s.class, s.tag)
				}
			}
		})
	}
}

// TestIndexDeleted: a digest is a child as long as an index lists it.
func TestIndexDeleted(t *testing.T) {
	t.Parallel()
	r := newClassifier(t, Config{MaxChildren: 40})
	put := func(n int, children ...int) {
		q := Request{Method: "PUT", Repository: "x", Digest: digest(n), Kind: "index"}
		for _, child := range children {
			q.Children = append(q.Children, digest(child))
		}
		r.Class(q)
	}
	want := func(when string, class counts.Class, n int) {
		t.Helper()
		if got, _, _ := r.Class(Request{Method: "GET", Repository: "x", Digest: digest(n), Kind: "image"}); got != class {
			t.Errorf("%s: %d is %s, want %s", when, n, got, class)
		}
	}
	put(1, 11, 12, 12)
	put(2, 12, 13)
	r.Learn(IndexDeleted("y", digest(1)))
	want("an index of another repository is deleted", counts.Child, 11)
	r.Learn(IndexDeleted("x", digest(1)))
	want("its index is deleted", counts.Pull, 11)
	want("another index lists it", counts.Child, 12)
	r.Learn(IndexDeleted("x", digest(2)), IndexDeleted("x", digest(2)))
	want("both are deleted", counts.Pull, 12)
	put(2, 12, 13)
	want("the index is pushed again", counts.Child, 13)
	put(3, 21, 22, 23, 24, 25, 26, 27, 28, 29)
	put(4, 31, 32, 33, 34, 35, 36, 37, 38, 39) // does not fit into this generation
	put(2, 12, 13)
	r.Learn(IndexDeleted("x", digest(2)))
	want("it was in both generations", counts.Pull, 13)
	if n := r.children.newer.size + r.children.older.size; n != 20 || len(r.children.newer.listedBy)+len(r.children.older.listedBy) != 18 {
		t.Errorf("%d entries in memory, want 2 indexes and their 18 children", n)
	}
	r.LearnArtifact("x", digest(5))
	want("it refers to another image", counts.Artifact, 5)
	if got, _, _ := r.Class(Request{Method: "GET", Repository: "x", Tag: "v1", Digest: digest(5), Kind: "image"}); got != counts.Artifact {
		t.Errorf("a GET by tag is %s, want artifact", got)
	}
}

// TestLearnedIndexIsComplete: an index that is learned child by child stays complete
// when a new generation is started in between.
func TestLearnedIndexIsComplete(t *testing.T) {
	t.Parallel()
	r := newClassifier(t, Config{MaxChildren: 16})
	for n := range 10 {
		r.Learn(IndexEntry{Index: KeyOf("x", digest(100)), Child: KeyOf("x", digest(n))})
	}
	others := make([]string, 7)
	for i := range others {
		others[i] = digest(201 + i)
	}
	r.Class(Request{Method: "PUT", Repository: "x", Digest: digest(200), Children: others}) // starts a new generation
	for n := range 10 {
		if class, _, _ := r.Class(Request{Method: "GET", Repository: "x", Digest: digest(n)}); class != counts.Child {
			t.Errorf("child %d is %s, want child", n, class)
		}
	}
}

func TestFreshChildren(t *testing.T) {
	t.Parallel()
	r := newClassifier(t, Config{MaxChildren: 12})
	ask := func(from, n int) []string {
		q := Request{Method: "GET", Repository: "x", Tag: "v1", Kind: "index", Digest: digest(10_000 + 100*from + n)}
		for i := range n {
			q.Children = append(q.Children, digest(from+i))
		}
		_, _, fresh := r.Class(q)
		return fresh
	}
	known := func(n int) bool {
		class, _, _ := r.Class(Request{Method: "GET", Repository: "x", Digest: digest(n)})
		return class == counts.Child
	}
	if got := ask(0, 3); !slices.Equal(got, []string{digest(0), digest(1), digest(2)}) {
		t.Errorf("fresh = %v, want all three children", got)
	}
	if got := ask(0, 3); got != nil {
		t.Errorf("fresh = %v for a known index, want none", got)
	}
	ask(10, 4) // does not fit into the generation that has 0, 1, 2
	if !known(0) || !known(10) || !known(13) {
		t.Error("children in the last two generations are unknown")
	}
	if got := ask(0, 1); !slices.Equal(got, []string{digest(0)}) {
		t.Errorf("fresh = %v, want the child that was only in the older generation", got)
	}
	ask(20, 3)
	if !known(0) || known(1) || !known(20) {
		t.Error("want the child that was added again, and no others of the dropped generation")
	}
	for i := range 1000 {
		ask(100+i, 1)
	}
	if n := r.children.newer.size + r.children.older.size; n > 12 {
		t.Errorf("%d indexes and children in memory, want at most 12", n)
	}
}

func TestHeadLimit(t *testing.T) {
	t.Parallel()
	r := newClassifier(t, Config{MaxHeads: 10})
	for i := range 1000 {
		r.Class(Request{Method: "HEAD", Repository: "x", Tag: "v1", Digest: digest(i), Client: "10.0.0.1"})
	}
	if n := r.heads.byKey.Len(); n > 10 {
		t.Errorf("%d HEADs in memory, want at most 10", n)
	}
	if _, tag, _ := r.Class(Request{Method: "GET", Repository: "x", Digest: digest(999), Client: "10.0.0.1"}); tag != "v1" {
		t.Error("the last HEAD is not remembered")
	}
}

func TestPatterns(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{
		{"trivy", "trivy", true}, {"trivy", "trivy/1", false}, {"trivy*", "trivy/1", true},
		{"*trivy*", "a/b trivy/1 c", true}, {"*", "x", true}, {"*", "", false}, {"?", "x", true},
		{"?", "xy", false}, {"a*b*c", "a1b2b3c", true}, {"a*b*c", "a1b2b3", false}, {"a**", "a", true},
		{"*a?c", "aacabc", true}, {"*b", "abab", true}, {"Trivy", "tRIVY", true}, {"é*", "é!", true},
	} {
		p, err := newPatterns([]string{c.pattern}, true)
		if err != nil || p.match(c.s) != c.want {
			t.Errorf("%q matches %q: %v, want %v (%v)", c.pattern, c.s, !c.want, c.want, err)
		}
	}
	for _, bad := range [][]string{{""}, {" "}, {"a", ""}, {strings.Repeat("a", maxPatternLength+1)}, make([]string, MaxPatterns+1)} {
		if _, err := New(Config{IgnoreUserAgents: bad}); err == nil {
			t.Errorf("%d patterns like %.10q are accepted as user agents", len(bad), bad[0])
		}
		if _, err := New(Config{IgnoreActors: bad}); err == nil {
			t.Errorf("%d patterns like %.10q are accepted as actors", len(bad), bad[0])
		}
	}
	if _, err := New(Config{HeadWindow: -1}); err == nil {
		t.Error("a negative window is accepted")
	}
}

// FuzzPattern compares match with a simple recursive implementation.
func FuzzPattern(f *testing.F) {
	f.Add("*a?c*", "xxabcxx")
	f.Add("a*a", "a")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if len(pattern) > 12 || len(s) > 40 || s == "" {
			return
		}
		p, err := newPatterns([]string{pattern}, false)
		if err != nil {
			return
		}
		if got, want := p.match(s), plainMatch(pattern, s); got != want {
			t.Errorf("%q matches %q: %v, want %v", pattern, s, got, want)
		}
	})
}

func plainMatch(pattern, s string) bool {
	switch {
	case pattern == "":
		return s == ""
	case pattern[0] == '*':
		return plainMatch(strings.TrimLeft(pattern, "*"), s) || s != "" && plainMatch(pattern, s[1:])
	case s == "":
		return false
	}
	return (pattern[0] == '?' || pattern[0] == s[0]) && plainMatch(pattern[1:], s[1:])
}

func TestConcurrentClassifier(t *testing.T) {
	t.Parallel()
	r := newClassifier(t, Config{MaxChildren: 100, MaxHeads: 100})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 500 {
				client := fmt.Sprint(g)
				r.Class(Request{Method: "HEAD", Repository: "x", Tag: "v1", Digest: digest(g), Client: client, Children: []string{digest(i)}})
				r.Learn(IndexEntry{Child: ManifestKey(i)})
			}
		})
	}
	wg.Wait()
}

func BenchmarkClass(b *testing.B) {
	r := newClassifier(b, Config{IgnoreUserAgents: []string{"*trivy*", "*grype*", "harbor-*", "kube-probe/*"}, IgnoreActors: []string{"mirror-*"}})
	children := make([]string, 12)
	for i := range children {
		children[i] = digest(i)
	}
	for n := range 1 << 20 {
		r.Learn(IndexEntry{Child: ManifestKey(n)})
	}
	agent := "docker/28.0.1 go/go1.23.6 git-commit/bbd0a17 kernel/6.8.0-52-generic os/linux arch/amd64 UpstreamClient(Docker-Client/28.0.1 \\(linux\\))"
	for name, q := range map[string]Request{
		"tag":    {Method: "GET", Repository: "team/app", Tag: "v1", Digest: digest(1), Kind: "image"},
		"index":  {Method: "GET", Repository: "team/app", Tag: "v1", Digest: digest(1), Kind: "index", Children: children},
		"digest": {Method: "GET", Repository: "team/app", Digest: digest(1), Kind: "image"},
		"head":   {Method: "HEAD", Repository: "team/app", Tag: "v1", Digest: digest(1), Kind: "image"},
	} {
		q.Client, q.UserAgent, q.Actor = "203.0.113.7", agent, "alice"
		b.Run(name, func(b *testing.B) {
			r.Class(q)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					r.Class(q)
				}
			})
		})
	}
}
