package notifier

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidings-dev/tidings/internal/clock/clocktest"
	"github.com/tidings-dev/tidings/notifier/announce"
	"github.com/tidings-dev/tidings/notifier/delivery"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/pushrow"
	"github.com/tidings-dev/tidings/notifier/state"
)

// shortWindows is a configuration whose windows close while a test waits.
func shortWindows() *announce.Config {
	return &announce.Config{
		Collect:   20 * time.Millisecond,
		Reference: func(repository, tag string) string { return "registry.test/" + repository + ":" + tag },
	}
}

func index(children ...Push) Push {
	var list []any
	for i, c := range children {
		list = append(list, map[string]any{
			"mediaType": c.MediaType, "digest": c.Digest, "size": len(c.Payload),
			"platform": map[string]any{"os": "linux", "architecture": []string{"amd64", "arm64"}[i%2]},
		})
	}
	m := map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": list}
	payload, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return Push{Repository: "oss/app", Digest: digest.FromBytes(payload).String(), MediaType: m["mediaType"].(string), Payload: payload}
}

func TestAnnounce(t *testing.T) {
	t.Parallel()
	a, b := image("a", 3), image("b", 2)
	both := index(a, b)
	for name, test := range map[string]struct {
		do   func(r *rig)
		want []string // names in the first lines of the posts, oldest first
	}{
		"a tagged push":         {func(r *rig) { r.push(a.as("oss/app", "v1")) }, []string{"oss/app:v1"}},
		"no tag":                {func(r *rig) { r.push(a) }, nil},
		"not public":            {func(r *rig) { r.push(a.as("secret/app", "v1")) }, nil},
		"a signature":           {func(r *rig) { r.push(a.as("oss/app", "sha256-"+strings.Repeat("a", 64)+".sig")) }, nil},
		"two images":            {func(r *rig) { r.push(a.as("oss/app", "v1")); r.push(b.as("oss/app", "v2")) }, []string{"oss/app:v1", "oss/app:v2"}},
		"pushed again at once":  {func(r *rig) { r.push(a.as("oss/app", "v1")); r.push(a.as("oss/app", "v1")) }, []string{"oss/app:v1"}},
		"pushed again later":    {func(r *rig) { r.push(a.as("oss/app", "v1")); r.drain(); r.push(a.as("oss/app", "v1")) }, []string{"oss/app:v1"}},
		"a second tag later":    {func(r *rig) { r.push(a.as("oss/app", "v1")); r.drain(); r.push(a.as("oss/app", "v2")) }, []string{"oss/app:v1"}},
		"a child and its index": {func(r *rig) { r.push(a); r.push(b); r.push(both.as("oss/app", "v1")) }, []string{"oss/app:v1"}},
		"after a restart":       {func(r *rig) { r.push(a.as("oss/app", "v1")); r.reopen(shortWindows()); r.push(a.as("oss/app", "v1")) }, []string{"oss/app:v1"}},
		"deleted at once":       {func(r *rig) { r.push(a.as("oss/app", "v1")); r.delete(a) }, nil},
	} {
		for _, f := range [][]fault{nil, {lostRequest, lostAnswer}, {lostAnswer, lostAnswer}} {
			t.Run(fmt.Sprint(name, f), func(t *testing.T) {
				t.Parallel()
				announce := shortWindows()
				if name == "deleted at once" {
					announce.Collect = time.Second // so that the delete is in time on a slow machine
				}
				r := newRig(t, announce)
				r.account.fail(f...)
				test.do(r)
				r.drain()
				var got []string
				for _, p := range r.posts() {
					text, _, _ := strings.Cut(p["text"].(string), "\n")
					name, _, _ := strings.Cut(text, " ")
					got = append(got, name)
				}
				if fmt.Sprint(got) != fmt.Sprint(test.want) {
					t.Errorf("posts about %v, want %v", got, test.want)
				}
			})
		}
	}
}

// An image that is deleted in its window is counted once, although the events of an open
// window are handled repeatedly.
func TestDeletedBeforeAnnounced(t *testing.T) {
	t.Parallel()
	announce := shortWindows()
	announce.Collect = time.Second
	r := newRig(t, announce)
	a := image("a", 3)
	r.push(a.as("oss/app", "v1"))
	r.delete(a)
	r.reopen(announce) // reads both at once, first in the open window
	r.drain()
	registry := prometheus.NewRegistry()
	registry.MustRegister(r.metrics.Posts)
	got, err := registry.Gather()
	if err != nil || len(got) != 1 || len(got[0].GetMetric()) != 1 || got[0].GetMetric()[0].GetCounter().GetValue() != 1 {
		t.Errorf("outcomes of posts: %v, %v; want one with outcome deleted", got, err)
	}
}

// Tags that are pushed in the window of a digest are in its post, one that is announced
// comes first.
func TestAnnounceJoinsTags(t *testing.T) {
	t.Parallel()
	announce := shortWindows()
	announce.Collect = 500 * time.Millisecond
	announce.Tag = func(tag string) bool { return strings.HasPrefix(tag, "v") }
	r := newRig(t, announce)
	a := image("a", 3)
	r.push(a.as("oss/app", "latest"))
	r.push(a.as("oss/app", "v1.2.3"))
	r.push(image("b", 1).as("oss/app", "edge"))
	r.drain()
	posts := r.posts()
	if len(posts) != 1 {
		t.Fatalf("got %d posts, want one: %v", len(posts), posts)
	}
	want := "oss/app:v1.2.3 was pushed (also latest)\nfirst version, 3.1 kB, 3 layers\n\ndocker pull registry.test/oss/app:v1.2.3"
	if got := posts[0]["text"]; got != want {
		t.Errorf("text %q, want %q", got, want)
	}
	pushes, err := r.Pushes(10, true)
	if err != nil {
		t.Fatal(err)
	}
	if len(pushes) != 3 || pushes[0].PostURI != "" || pushes[1].PostURI == "" || pushes[1].PostURI != pushes[2].PostURI {
		t.Errorf("pushes %+v, want the post at those of the announced digest", pushes)
	}
	if want := "at://" + owner + "/app.bsky.feed.post/" + pushes[2].ID; pushes[2].PostURI != want {
		t.Errorf("post %s, want the first push's key, %s", pushes[2].PostURI, want)
	}
}

// An image with an invalid link has a post without the link.
func TestAnnounceInvalidLink(t *testing.T) {
	t.Parallel()
	announce := shortWindows()
	announce.Link = func(_, tag, _ string) string {
		return map[string]string{"v1": "https://ex.example/pfäd/a b", "v2": "https://ex ample/", "v3": "javascript:alert(1)", "v4": "https://" + strings.Repeat("x", 9000)}[tag]
	}
	r := newRig(t, announce)
	for _, tag := range []string{"v1", "v2", "v3", "v4", "v5"} {
		r.push(image(tag, 1).as("oss/app", tag))
	}
	r.drain()
	posts := r.posts()
	if len(posts) != 5 {
		t.Fatalf("%d posts, want 5: %v", len(posts), posts)
	}
	for i, p := range posts {
		facets := fmt.Sprint(p["facets"])
		if i == 0 && !strings.Contains(facets, "https://ex.example/pf%C3%A4d/a%20b") || i > 0 && p["facets"] != nil {
			t.Errorf("post %d: facets %s", i+1, facets)
		}
	}
}

// Without announcements the journal keeps no events for them. When they are configured
// again, what was announced before is not announced again.
func TestAnnounceDisabled(t *testing.T) {
	t.Parallel()
	r := newRig(t, shortWindows())
	r.push(image("a", 1).as("oss/app", "v1"))
	r.drain()
	r.reopen(nil)
	if cursors := r.journal.Cursors(journal.Pushes); len(cursors) != 2 {
		t.Errorf("cursors %v, want those of records and counters", cursors)
	}
	r.push(image("b", 1).as("oss/app", "v2"))
	r.drain()
	r.reopen(shortWindows())
	r.push(image("c", 1).as("oss/app", "v3"))
	r.drain()
	var got []string
	for _, p := range r.posts() {
		name, _, _ := strings.Cut(p["text"].(string), " ")
		got = append(got, name)
	}
	slices.Sort(got)
	if len(got) < 2 || len(slices.Compact(slices.Clone(got))) != len(got) || got[0] != "oss/app:v1" || got[len(got)-1] != "oss/app:v3" {
		t.Errorf("posts about %v", got)
	}
}

// A batch in the outbox is checked again before it is sent: whether the repository is
// public, the age, the image and its tags.
func TestAnnounceRecheck(t *testing.T) {
	t.Parallel()
	a := image("a", 1)
	v1, latest := a.as("oss/app", "v1"), a.as("oss/app", "latest")
	for name, test := range map[string]struct {
		change func(r *rig, m *clocktest.Machine)
		want   string // first line of the post; "": no post
	}{
		"unchanged":            {func(*rig, *clocktest.Machine) {}, "oss/app:v1 was pushed (also latest)"},
		"not public any more":  {func(r *rig, _ *clocktest.Machine) { r.public = func(string) bool { return false } }, ""},
		"deleted":              {func(r *rig, _ *clocktest.Machine) { r.storage.remove(a) }, ""},
		"its tag is deleted":   {func(r *rig, _ *clocktest.Machine) { r.storage.untag(v1) }, ""},
		"its tag has moved":    {func(r *rig, _ *clocktest.Machine) { r.storage.put(image("b", 1).as("oss/app", "v1")) }, ""},
		"another tag deleted":  {func(r *rig, _ *clocktest.Machine) { r.storage.untag(latest) }, "oss/app:v1 was pushed"},
		"too old by now":       {func(_ *rig, m *clocktest.Machine) { m.Pass(2 * time.Hour) }, "1 image was pushed at"},
		"the clock has jumped": {func(_ *rig, m *clocktest.Machine) { m.Set(2 * time.Hour) }, "oss/app:v1 was pushed (also latest)"},
	} {
		for _, restart := range []bool{false, true} {
			if restart && name == "the clock has jumped" {
				continue // jumps before the start are not detected
			}
			t.Run(fmt.Sprint(name, " ", restart), func(t *testing.T) {
				t.Parallel()
				announce := shortWindows()
				announce.Collect = 500 * time.Millisecond // for both pushes, also on a slow machine
				announce.Tag = func(tag string) bool { return strings.HasPrefix(tag, "v") }
				r := newRig(t, announce)
				m := clocktest.New()
				m.Real = true
				r.now, r.elapsed = m.Now, m.Elapsed
				r.reopen(announce)
				r.account.fail(noFault) // the layer record
				r.account.fail(slices.Repeat([]fault{lostRequest}, 1000)...)
				r.push(latest)
				r.push(v1)
				r.until("it is in the outbox", func() bool {
					ok, err := delivery.NewOutbox(r.state, state.AnnounceOutbox, nil).Load(&json.RawMessage{})
					return ok && err == nil && len(r.records()) == 1
				})
				if restart {
					r.stop()
					test.change(r, m)
					r.open(announce)
				} else {
					r.until("the other sinks have no pending events", func() bool {
						for _, h := range r.Health() {
							if h.Sink != "announce" && h.Depth > 0 {
								return false
							}
						}
						return true
					})
					r.full.Store(true)
					tried := r.account.tried.Load()
					r.until("no post is being sent", func() bool { return r.account.tried.Load() > tried+1 })
					test.change(r, m)
					r.account.heal()
					r.full.Store(false)
				}
				r.drain()
				if test.want != "" {
					r.until("it is posted", func() bool { return len(r.posts()) > 0 })
				}
				got := strings.Join(r.texts(), "")
				if summary, _, ok := strings.Cut(got, " at "); ok {
					got = summary + " at"
				}
				if got != test.want {
					t.Errorf("posted %q, want %q", got, test.want)
				}
				r.until("its result is known", func() bool { return !r.announced(1).Waiting })
				var result pushrow.Announce
				if ok, err := pushrow.Get(r.state, 1, pushrow.AnnouncePart, &result); !ok || err != nil || (result.PostURI != "") != (test.want != "") {
					t.Errorf("result %+v, %v, %v", result, ok, err)
				}
			})
		}
	}
}

// Tags that are moved or deleted in a window are not in the post.
func TestAnnounceTagsGone(t *testing.T) {
	t.Parallel()
	announce := shortWindows()
	announce.Collect = 400 * time.Millisecond
	r := newRig(t, announce)
	a, b := image("a", 1), image("b", 1)
	r.push(a.as("oss/app", "v1"))
	r.push(a.as("oss/app", "v1.0"))
	r.push(b.as("oss/app", "v1")) // moves the tag
	r.push(image("c", 1).as("oss/app", "v3"))
	r.storage.untag(Push{Repository: "oss/app", Tag: "v3"})
	r.drain()
	var got []string
	for _, p := range r.posts() {
		text, _, _ := strings.Cut(p["text"].(string), "\n")
		got = append(got, text)
	}
	if want := []string{"oss/app:v1.0 was pushed", "oss/app:v1 was pushed"}; !slices.Equal(got, want) {
		t.Errorf("posted %q, want %q", got, want)
	}
}

// A post names only tags that still point to its image when the window closes, also if
// storage can't be asked.
func TestAnnounceCurrentTags(t *testing.T) {
	t.Parallel()
	a, b := image("a", 1), image("b", 1)
	for name, test := range map[string]struct {
		do     func(r *rig)
		want   []string // the posts' first lines
		reason string   // of the first push
	}{
		"its tag is deleted": {func(r *rig) {
			r.push(a.as("oss/app", "v1.0.0"))
			r.untag(a.as("oss/app", "v1.0.0"))
		}, nil, "its tag was moved or deleted before it was announced"},
		"one of its tags is deleted": {func(r *rig) {
			r.push(a.as("oss/app", "v1.0.0"))
			r.push(a.as("oss/app", "latest"))
			r.untag(a.as("oss/app", "latest"))
		}, []string{"oss/app:v1.0.0 was pushed"}, ""},
		"the announced tag is deleted": {func(r *rig) {
			r.push(a.as("oss/app", "v1.0.0"))
			r.push(a.as("oss/app", "latest"))
			r.untag(a.as("oss/app", "v1.0.0"))
		}, nil, "its tag was moved or deleted before it was announced"},
		"its manifest is deleted and pushed with another tag": {func(r *rig) {
			r.push(a.as("oss/app", "v1.0.0"))
			r.delete(a)
			r.push(a.as("oss/app", "v2.0.0"))
		}, []string{"oss/app:v2.0.0 was pushed"}, ""},
		"its tag moves to another and it gets a second": {func(r *rig) {
			r.push(a.as("oss/app", "v1.0.0"))
			r.push(b.as("oss/app", "v1.0.0"))
			r.push(a.as("oss/app", "v2.0.0"))
		}, []string{"oss/app:v2.0.0 was pushed", "oss/app:v1.0.0 was pushed"}, ""},
		"its tag moves away and comes back": {func(r *rig) {
			r.push(a.as("oss/app", "v1.0.0"))
			r.push(b.as("oss/app", "v1.0.0"))
			r.push(a.as("oss/app", "v1.0.0"))
		}, []string{"oss/app:v1.0.0 was pushed"}, ""},
		"its tag moves in another repository": {func(r *rig) {
			r.push(a.as("oss/app", "v1.0.0"))
			r.push(b.as("oss/other", "v1.0.0"))
		}, []string{"oss/app:v1.0.0 was pushed", "oss/other:v1.0.0 was pushed"}, ""},
	} {
		for _, asked := range []bool{true, false} {
			t.Run(fmt.Sprint(name, ", storage is asked: ", asked), func(t *testing.T) {
				t.Parallel()
				announce := shortWindows()
				announce.Collect = 500 * time.Millisecond // one window for all, also on a slow machine
				announce.Tag = func(tag string) bool { return strings.HasPrefix(tag, "v") }
				r := newRig(t, announce)
				if !asked {
					r.storage = nil
					r.reopen(announce)
				}
				r.full.Store(true) // the sinks pause until everything is recorded
				test.do(r)
				r.full.Store(false)
				r.drain()
				var got []string
				for _, p := range r.posts() {
					text, _, _ := strings.Cut(p["text"].(string), "\n")
					got = append(got, text)
				}
				if !slices.Equal(got, test.want) {
					t.Errorf("posted %q, want %q", got, test.want)
				}
				pushes, err := r.Pushes(10, true)
				if err != nil || len(pushes) == 0 || pushes[len(pushes)-1].Reason != test.reason {
					t.Errorf("pushes %+v, %v; want the first with the reason %q", pushes, err, test.reason)
				}
			})
		}
	}
}

// The release of an announced pre-release is announced, and with Retags any new tag.
func TestAnnounceReleases(t *testing.T) {
	t.Parallel()
	type tags = []string
	for name, test := range map[string]struct {
		windows [][]string // tags of one digest
		want    []string   // the posts' first lines
		retags  []string   // with Retags
	}{
		"a release after its candidate": {
			[][]string{{"v1.0.0-rc.1"}, {"v1.0.0"}, {"v1.0.0"}},
			tags{"v1.0.0-rc.1 was pushed", "v1.0.0 was pushed"}, tags{"v1.0.0-rc.1 was pushed", "v1.0.0 was pushed"},
		},
		"two candidates": {
			[][]string{{"1.0.0-rc.1"}, {"1.0.0-rc.2"}, {"1.0.0", "latest"}, {"1.0.0-rc.2", "1.0.0"}},
			tags{"1.0.0-rc.1 was pushed", "1.0.0 was pushed (also latest)"},
			tags{"1.0.0-rc.1 was pushed", "1.0.0-rc.2 was pushed", "1.0.0 was pushed (also latest)"},
		},
		"another release": {
			[][]string{{"v1.0.0-rc.1"}, {"v2.0.0"}}, tags{"v1.0.0-rc.1 was pushed"}, tags{"v1.0.0-rc.1 was pushed", "v2.0.0 was pushed"},
		},
		"together": {
			[][]string{{"v1.0.0-rc.1", "v1.0.0"}, {"v1.0.0"}, {"v1.0.0-rc.1"}},
			tags{"v1.0.0 was pushed (also v1.0.0-rc.1)"}, tags{"v1.0.0 was pushed (also v1.0.0-rc.1)"},
		},
		"no release": {
			[][]string{{"v1.0.0"}, {"latest"}, {"v1.0.0", "latest"}}, tags{"v1.0.0 was pushed"}, tags{"v1.0.0 was pushed", "latest was pushed"},
		},
		"a candidate after its release": {
			[][]string{{"v1.0.0"}, {"v1.0.0-rc.2"}}, tags{"v1.0.0 was pushed"}, tags{"v1.0.0 was pushed", "v1.0.0-rc.2 was pushed"},
		},
	} {
		for _, retags := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", retags ", retags), func(t *testing.T) {
				t.Parallel()
				announce := shortWindows()
				announce.Collect, announce.Retags = 400*time.Millisecond, retags
				r := newRig(t, announce)
				a := image("a", 1)
				for i, window := range test.windows {
					r.full.Store(true) // the sinks pause until everything is recorded
					for _, tag := range window {
						r.push(a.as("oss/app", tag))
					}
					r.full.Store(false)
					r.drain()
					if i == 0 && len(window) == 1 { // a history that is rebuilt from the posts has the same effect
						r.stop()
						if err := os.RemoveAll(filepath.Join(r.dir, "state")); err != nil {
							t.Fatal(err)
						}
						r.open(announce)
					}
				}
				want := test.want
				if retags {
					want = test.retags
				}
				var got []string
				for _, p := range r.posts() {
					text, _, _ := strings.Cut(p["text"].(string), "\n")
					got = append(got, strings.TrimPrefix(text, "oss/app:"))
				}
				if !slices.Equal(got, want) {
					t.Errorf("posted %q, want %q", got, want)
				}
				r.consistent()
			})
		}
	}
}

// manifest is the push of a manifest with the given members.
func manifest(members map[string]any) Push {
	m := map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": []any{}}
	for name, value := range members {
		m[name] = value
	}
	payload, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return Push{Repository: "oss/app", Digest: digest.FromBytes(payload).String(), MediaType: m["mediaType"].(string), Payload: payload}
}

// The API shows why a push has no post, and the earlier post of its digest.
func TestAnnounceReasons(t *testing.T) {
	t.Parallel()
	announce := shortWindows()
	announce.Tag = func(tag string) bool { return tag != "edge" }
	r := newRig(t, announce)
	a := image("a", 1)
	imageConfig := descriptor("application/vnd.oci.image.config.v1+json", "config", 2)
	r.push(a.as("oss/app", "v1"))
	r.drain()
	for _, test := range []struct {
		push   Push
		reason string
	}{
		{a.as("oss/app", "v1"), "announced before"},
		{a.as("oss/app", "v2"), "announced before"},
		{image("b", 1), "pushed without a tag"},
		{image("c", 1).as("oss/app", "edge"), "no tag that is announced"},
		{manifest(map[string]any{"config": descriptor("application/vnd.cncf.helm.config.v1+json", "chart", 2)}).as("oss/app", "chart"),
			"not announced, since its kind is chart and it is neither an image nor an index of images"},
		{manifest(map[string]any{"config": descriptor("application/vnd.wasm.config.v0+json", "wasm", 2)}).as("oss/app", "wasm"),
			"not announced, since its kind is artifact and it is neither an image nor an index of images"},
		{manifest(map[string]any{"config": descriptor("application/vnd.docker.plugin.v1+json", "plugin", 2)}).as("oss/app", "plugin"),
			"not announced, since its kind is artifact and it is neither an image nor an index of images"},
		{manifest(map[string]any{"config": imageConfig, "artifactType": "application/vnd.cncf.openpolicyagent.config.v1+json"}).as("oss/app", "policy"),
			"not announced, since its kind is artifact and it is neither an image nor an index of images"},
		{manifest(map[string]any{"config": imageConfig, "subject": descriptor("application/vnd.oci.image.manifest.v1+json", "subject", 2)}).as("oss/app", "about"),
			"not announced, since it describes another manifest, its subject"},
		{image("d", 1).as("oss/app", "sha256-"+strings.Repeat("a", 64)+".sig"),
			"not announced, since its kind is signature and it is neither an image nor an index of images"},
	} {
		r.push(test.push)
		r.drain()
		pushes, err := r.Pushes(100, true)
		if err != nil || len(pushes) == 0 {
			t.Fatalf("%v, %v", pushes, err)
		}
		if p := pushes[0]; p.Reason != test.reason || p.State != stateDone {
			t.Errorf("%s of kind %s: reason %q, state %s; want %q", p.Tags, p.Kind, p.Reason, p.State, test.reason)
		}
		first := pushes[len(pushes)-1].PostURI
		if got := pushes[0].PostURI; first == "" || (test.reason == "announced before") != (got == first) {
			t.Errorf("%s, %s: post %q; the first has %q", pushes[0].Tags, test.reason, got, first)
		}
		out, _, err := r.result(r.events())
		if err != nil || out.PostCreated == nil || *out.PostCreated || out.PostURI != "" {
			t.Errorf("%s: notifyManifest would answer %+v, %v", pushes[0].Tags, out, err)
		}
	}
}
