package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/internal/faultproxy"
)

const (
	owner  = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
	digest = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
)

// What a repo has too much, twice or not at all is found.
func TestCompare(t *testing.T) {
	t.Parallel()
	app := image{repository: "oss/app", tag: "v1", digest: digest, layers: []string{"sha256:a", "sha256:b"}}
	layer := func(digest string) map[string]any {
		return map[string]any{"manifest": "at://" + owner + "/io.atcr.manifest/" + strings.TrimPrefix(app.digest, "sha256:"), "digest": digest}
	}
	announcement := map[string]any{"tidingsImage": "oss/app:v1@" + digest}
	const layers, posts = "io.atcr.hold.layer", "app.bsky.feed.post"
	for name, c := range map[string]struct {
		change func(contents)
		want   string // in the problem; "": none
	}{
		"complete":           {func(contents) {}, ""},
		"a layer is missing": {func(c contents) { delete(c, layerOf(layer("")["manifest"].(string), "sha256:a")) }, "1 records missing, such as record of layer sha256:a of at://"},
		"a layer is twice":   {func(c contents) { c.found(layers, "at://x", layer("sha256:b")) }, "1 records 2 times, such as record of layer sha256:b"},
		"a post is twice":    {func(c contents) { c.found(posts, "at://x", announcement) }, "1 records 2 times, such as post of oss/app:v1@sha256:9f"},
		"another post":       {func(c contents) { c.found(posts, "at://x/p", map[string]any{"text": "hello"}) }, "1 records not expected, such as unexpected record at://x/p"},
		"another collection": {func(c contents) { c.found("app.bsky.feed.like", "at://x/l", nil) }, "1 records not expected, such as unexpected record at://x/l"},
		"another layer":      {func(c contents) { c.found(layers, "at://x", layer("sha256:c")) }, "1 records not expected, such as record of layer sha256:c"},
	} {
		want, got := contents{}, contents{}
		want.expect(owner, app)
		got.found(layers, "at://x", layer("sha256:a"))
		got.found(layers, "at://x", layer("sha256:b"))
		got.found(posts, "at://x", announcement)
		c.change(got)
		problems := strings.Join(compare(want, got), "\n")
		if c.want == "" && problems != "" || !strings.Contains(problems, c.want) {
			t.Errorf("%s: got %q, want %q", name, problems, c.want)
		}
	}
}

// Points are those of calls that reached the PDS; only those of calls without a
// response are left out.
func TestPoints(t *testing.T) {
	t.Parallel()
	writes := func(kind string, from, n int) []byte {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf(`{"$type":"com.atproto.repo.applyWrites#%s","collection":"io.atcr.hold.layer","rkey":"k%d"}`, kind, from+i))
		}
		return []byte(`{"writes":[` + strings.Join(list, ",") + `]}`)
	}
	tally := newTally()
	for _, c := range []struct {
		status int
		input  []byte
		want   counts
		enough bool // for 100 records
	}{
		{0, writes("create", 0, 100), counts{calls: 1, points: 300, unanswered: 300}, true},
		{200, writes("create", 0, 100), counts{calls: 2, points: 600, unanswered: 300}, true},
		{200, writes("update", 0, 1), counts{calls: 3, points: 602, unanswered: 300}, true},
		{200, writes("delete", 0, 1), counts{calls: 4, points: 603, unanswered: 300}, true},
		{500, writes("create", 0, 4), counts{calls: 5, points: 615, unanswered: 300, refused: 12, repeated: 4}, true},
		{500, writes("create", 100, 1), counts{calls: 6, points: 618, unanswered: 300, refused: 15, repeated: 4}, false},
	} {
		tally.add(faultproxy.Call{Method: applyWrites, Status: c.status, Input: c.input})
		tally.add(faultproxy.Call{Method: "com.atproto.repo.getRecord", Status: 200})
		if got := tally.total(); got != c.want {
			t.Errorf("got %+v, want %+v", got, c.want)
		}
		if problems := checkPoints(100, tally.total()); (problems == nil) != c.enough {
			t.Errorf("after %+v: %v", c.want, problems)
		}
	}
}
