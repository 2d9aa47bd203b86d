package notifier

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/clock/clocktest"
	"github.com/tidings-dev/tidings/notifier/announce"
	"github.com/tidings-dev/tidings/notifier/post"
	"github.com/tidings-dev/tidings/notifier/state"
)

// After a post of a repository, the versions that are pushed within the cooldown are in one
// post, at its end.
func TestAnnounceCooldown(t *testing.T) {
	t.Parallel()
	r, m := newManualRig(t, policy())
	pass := func(d time.Duration) { m.Pass(d); r.mustStep() }
	push := func(repository, tag string) { r.push(image(tag, 1).as(repository, tag)) }
	push("oss/app", "v1")
	pass(20 * time.Second)
	until := m.Now().Add(10 * time.Minute).UTC().Format(time.RFC3339)
	for _, tag := range []string{"v2", "v3", "v4"} {
		push("oss/app", tag)
		pass(time.Minute)
	}
	push("oss/other", "v1")
	pass(20 * time.Second)
	if want := []string{"oss/app:v1 was pushed", "oss/other:v1 was pushed"}; !slices.Equal(r.texts(), want) {
		t.Errorf("within the cooldown: %q, want %q", r.texts(), want)
	}
	if got := r.announced(2); !got.Waiting || got.Reason != "waiting: cooldown of the repository until "+until {
		t.Errorf("result of v2: %+v, want that it waits until %s", got, until)
	}
	pass(10*time.Minute - 200*time.Second - time.Millisecond)
	if got := len(r.texts()); got != 2 {
		t.Errorf("%d posts before the cooldown ended", got)
	}
	r.reopenCopy(policy())
	pass(time.Millisecond)
	want := []string{"oss/app:v1 was pushed", "oss/app:v4 and 2 more versions were pushed", "oss/other:v1 was pushed"}
	if !slices.Equal(r.texts(), want) {
		t.Errorf("after the cooldown: %q, want %q", r.texts(), want)
	}
	joined, newest := r.announced(2), r.announced(4)
	if newest.PostURI == "" || joined.PostURI != newest.PostURI || joined.Reason != "joined the post of oss/app:v4" || joined.Waiting || newest.Reason != "" {
		t.Errorf("results of v2 and v4: %+v, %+v", joined, newest)
	}
	push("oss/app", "v2")
	pass(20 * time.Minute)
	push("oss/app", "v5")
	pass(20 * time.Second)
	if got := r.texts(); len(got) != 4 || got[3] != "oss/app:v5 was pushed" {
		t.Errorf("after the cooldown of the second post: %q", got)
	}
	if got := r.announced(6); !got.Before || got.PostURI != newest.PostURI {
		t.Errorf("result of v2, pushed again: %+v", got)
	}
}

// A version that waits is announced with the tags that it has when the cooldown ends, and
// not at all if it is gone.
func TestAnnounceCooldownChanges(t *testing.T) {
	t.Parallel()
	a, b := image("a", 1), image("b", 1)
	for name, test := range map[string]struct {
		do   func(r *rig)
		want string // the second post; "": none
	}{
		"nothing":            {func(*rig) {}, "oss/app:v3 and 1 more version were pushed"},
		"the newest deleted": {func(r *rig) { r.delete(b) }, "oss/app:v2 was pushed"},
		"the other deleted":  {func(r *rig) { r.delete(a) }, "oss/app:v3 was pushed"},
		"both deleted":       {func(r *rig) { r.delete(a); r.delete(b) }, ""},
		"a tag moved":        {func(r *rig) { r.storage.put(image("c", 1).as("oss/app", "v3")) }, "oss/app:v2 was pushed"},
		"a further tag":      {func(r *rig) { r.push(b.as("oss/app", "latest")) }, "oss/app:v3 (also latest) and 1 more version were pushed"},
		"not public":         {func(r *rig) { r.public = func(string) bool { return false } }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := policy()
			cfg.Tag = func(tag string) bool { return strings.HasPrefix(tag, "v") }
			r, m := newManualRig(t, cfg)
			for _, p := range []Push{image("first", 1).as("oss/app", "v1"), a.as("oss/app", "v2"), b.as("oss/app", "v3")} {
				r.push(p)
				m.Pass(20 * time.Second)
				r.mustStep()
			}
			m.Pass(time.Minute)
			test.do(r)
			m.Pass(time.Minute)
			r.mustStep()
			m.Pass(10 * time.Minute)
			r.mustStep()
			got := ""
			if texts := r.texts(); len(texts) > 1 {
				got = texts[1]
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// The children of an index come first, and the index gets two tags a minute apart: one post.
func TestAnnounceMovingTag(t *testing.T) {
	t.Parallel()
	cfg := policy()
	cfg.Collect = 2 * time.Minute
	cfg.Tag = func(tag string) bool { return strings.HasPrefix(tag, "v") }
	cfg.Exclude = func(tag string) bool { return tag == "nightly" }
	r, m := newManualRig(t, cfg)
	a, b := image("a", 2), image("b", 2)
	r.push(a)
	r.push(b)
	for _, tag := range []string{"v1.2.3", "latest", "nightly"} {
		r.push(index(a, b).as("oss/app", tag))
		m.Pass(time.Minute - time.Second)
		r.mustStep()
	}
	m.Pass(time.Hour)
	r.mustStep()
	if got, want := r.texts(), []string{"oss/app:v1.2.3 was pushed (also latest)"}; !slices.Equal(got, want) {
		t.Errorf("posted %q, want %q", got, want)
	}
}

// Beyond the daily limit the versions of a day are in one post, when the next day begins.
func TestAnnounceDailyLimit(t *testing.T) {
	t.Parallel()
	cfg := policy()
	cfg.PerDay = 3
	r, m := newManualRig(t, cfg)
	for i := range 8 {
		r.push(image(fmt.Sprint(i), 1).as(fmt.Sprint("oss/app", i), "v1"))
		m.Pass(time.Minute)
		r.mustStep()
	}
	if got := len(r.texts()); got != 3 {
		t.Errorf("%d posts on the day, want 3: %q", got, r.texts())
	}
	if got := r.announced(4); !got.Waiting || got.Reason != "waiting: in the summary of the day, since the daily limit is reached" {
		t.Errorf("the fourth: %+v", got)
	}
	m.Pass(12 * time.Hour)
	r.reopenCopy(cfg)
	r.mustStep()
	got := r.texts()
	if len(got) != 4 || !strings.HasPrefix(got[3], "5 images were pushed between ") || !strings.HasSuffix(got[3], ": oss/app3 v1; oss/app4 v1; oss/app5 v1; oss/app6 v1; oss/app7 v1") {
		t.Errorf("after midnight: %q", got)
	}
	if got := r.announced(4); got.Waiting || !got.Joined || got.PostURI == "" || got.Reason != "in a summary" {
		t.Errorf("the fourth: %+v", got)
	}
	r.push(image("next day", 1).as("oss/app", "v1"))
	m.Pass(time.Minute)
	r.mustStep()
	if got := len(r.texts()); got != 5 {
		t.Errorf("%d posts, want another one on the next day", got)
	}
}

// The key of a summary is not used again by a later process, while keys are ahead of a system
// clock that was set back.
func TestSummaryKey(t *testing.T) {
	t.Parallel()
	cfg := policy()
	cfg.PerDay = 2
	r, m := newManualRig(t, cfg)
	push := func(name string) { r.push(image(name, 1).as("oss/"+name, "v1")) }
	for _, name := range []string{"a", "b", "c"} {
		push(name)
		m.Pass(time.Minute)
		r.mustStep()
	}
	m.Pass(12 * time.Hour)
	m.Set(3 * time.Minute)
	push("d")
	m.Set(-3 * time.Minute)
	r.mustStep() // writes a summary, of c
	r.reopen(cfg)
	push("e")
	m.Pass(time.Minute)
	r.mustStep()
	if got := r.texts(); len(got) != 5 || len(r.letters()) != 0 {
		t.Errorf("posts %q, letters %+v", got, r.letters())
	}
}

// A version that waits for the end of a cooldown is in the summary if the posts of the day
// are used up then.
func TestAnnounceDailyLimitAfterCooldown(t *testing.T) {
	t.Parallel()
	cfg := policy()
	cfg.PerDay = 2
	r, m := newManualRig(t, cfg)
	for _, p := range []Push{image("a", 1).as("oss/app", "v1"), image("b", 1).as("oss/app", "v2"), image("c", 1).as("oss/other", "v1")} {
		r.push(p)
		m.Pass(time.Minute)
		r.mustStep()
	}
	m.Pass(10 * time.Minute)
	r.mustStep()
	if got := r.announced(2); !strings.Contains(got.Reason, "daily limit") {
		t.Errorf("v2: %+v", got)
	}
	m.Pass(12 * time.Hour)
	r.mustStep()
	if got := r.texts(); len(got) != 3 || !strings.Contains(got[2], "1 image was pushed") {
		t.Errorf("posts %q", got)
	}
}

// After an outage of three hours there is one post about all pushes that are too old, and
// what was pushed last is announced as usual.
func TestAnnounceOutage(t *testing.T) {
	t.Parallel()
	r, m := newManualRig(t, policy())
	outage(r, m)
	r.mustStep()
	texts := r.texts()
	versions, summaries := 0, 0
	for _, text := range texts {
		n, summary := versionsOf(text)
		if summary {
			summaries++
		} else {
			versions += n
		}
	}
	if summaries != 1 || len(texts) > 11 {
		t.Errorf("%d summaries in %d posts, want one of 11: %q", summaries, len(texts), texts)
	}
	m.Pass(20 * time.Minute)
	r.mustStep()
	checkExact(t, r, policy())
}

// outage is three hours with 200 pushes to ten repositories that nobody handles.
func outage(r *rig, m *clocktest.Machine) {
	r.t.Helper()
	for i := range 200 {
		r.push(image(fmt.Sprint(i), 1).as(fmt.Sprint("oss/app", i%10), fmt.Sprint("v", i)))
		m.Pass(54 * time.Second)
	}
}

// checkExact checks that each image with a tag that is announced is announced once, in a
// post that counts it.
func checkExact(t *testing.T, r *rig, cfg *announce.Config) {
	t.Helper()
	stated := map[string]int{} // versions, by record key
	for _, p := range r.posts() {
		stated[p["rkey"].(string)], _ = versionsOf(p["text"].(string))
	}
	found := map[string]map[string]bool{} // images, by record key
	last := r.journal.Status(0).Last
	for seq := uint64(1); seq <= last; seq++ {
		e := r.event(seq)
		if e.Tag == "" || e.Operation != "push" {
			continue
		}
		result := r.announced(seq)
		if result.PostURI == "" || result.Waiting {
			t.Errorf("push %d of %s:%s has the result %+v", seq, e.Repository, e.Tag, result)
			continue
		}
		if !result.Before {
			rkey := path.Base(result.PostURI)
			if found[rkey] == nil {
				found[rkey] = map[string]bool{}
			}
			found[rkey][e.Repository+"@"+e.ManifestDigest] = true
		}
	}
	for rkey, n := range stated {
		if len(found[rkey]) != n {
			t.Errorf("post %s says that it is about %d versions, and %d have it", rkey, n, len(found[rkey]))
		}
		delete(found, rkey)
	}
	if len(found) > 0 {
		t.Errorf("posts that do not exist: %v", found)
	}
}

// A data folder of an earlier version of the program, with a post in the outbox and an open
// window, goes on.
func TestAnnounceEarlierVersion(t *testing.T) {
	t.Parallel()
	for _, call := range []fault{lostRequest, lostAnswer} {
		cfg := policy()
		r, m := newManualRig(t, cfg)
		r.push(image("a", 1).as("oss/app", "v1"))
		m.Pass(15 * time.Second)
		r.push(image("b", 1).as("oss/app", "v2"))
		m.Pass(15 * time.Second)
		r.account.fail(call)
		if err := r.announceStep(); err == nil {
			t.Fatal("the call has not failed")
		}
		r.reopenCopy(cfg)
		makeEarlier(t, r)
		r.mustStep()
		m.Pass(15 * time.Minute)
		r.mustStep()
		if want := []string{"oss/app:v1 was pushed", "oss/app:v2 was pushed"}; !slices.Equal(r.texts(), want) {
			t.Errorf("fault %d: posts %q, want %q", call, r.texts(), want)
		}
		checkExact(t, r, cfg)
	}
}

// makeEarlier changes the state to what an earlier version of the program would have written.
func makeEarlier(t *testing.T, r *rig) {
	t.Helper()
	val, err := r.state.Get(state.AnnounceOutbox)
	if err != nil {
		t.Fatal(err)
	}
	var batch map[string][]map[string]any
	decoder := json.NewDecoder(bytes.NewReader(val))
	decoder.UseNumber()
	if err := decoder.Decode(&batch); err != nil || len(batch["posts"]) != 1 {
		t.Fatalf("outbox %s: %v", val, err)
	}
	earlier := []string{"repository", "digest", "seqs", "tags", "time", "tid", "clockId", "local", "facts", "write"}
	maps.DeleteFunc(batch["posts"][0], func(name string, _ any) bool { return !slices.Contains(earlier, name) })
	facts := batch["posts"][0]["facts"].(map[string]any)
	known := []string{"Repository", "Tags", "Digest", "Images", "Size", "Layers", "Platforms", "Reference", "Link"}
	maps.DeleteFunc(facts, func(name string, _ any) bool { return !slices.Contains(known, name) })
	if len(batch["posts"][0]) != len(earlier) || len(facts) != len(known) {
		t.Fatalf("outbox %s has not all members", val)
	}
	if val, err = json.Marshal(batch); err != nil {
		t.Fatal(err)
	}
	var b state.Batch
	b.Set(state.AnnounceOutbox, val)
	for _, key := range [][]byte{state.AnnounceDecided, state.AnnounceQueue, state.AnnounceDay} {
		b.Delete(key)
	}
	b.DeleteRange(state.Prefix(state.Cooldowns))
	b.DeleteRange(state.Prefix(state.Waiting))
	if err := r.state.Commit(&b, state.Sync); err != nil {
		t.Fatal(err)
	}
}

// What waits is bounded: versions beyond the limit of a repository are in a summary, which
// is written early when it is full. Nothing is lost.
func TestAnnounceWaitingBounded(t *testing.T) {
	t.Parallel()
	cfg := policy()
	cfg.Collect = 0
	r, m := newManualRig(t, cfg)
	const pushes = 2500
	for i := range pushes {
		r.push(image(fmt.Sprint(i), 1).as("oss/app", fmt.Sprint("v", i)))
		if i%100 == 0 {
			r.mustStep()
		}
	}
	r.mustStep()
	var rows, size int
	err := r.state.Scan(state.Prefix(state.Waiting), func(key, val []byte) error {
		rows, size = rows+1, size+len(key)+len(val)
		return nil
	})
	if err != nil || rows > 700 || size > 400*rows {
		t.Errorf("%d versions wait with %d bytes, %v", rows, size, err)
	}
	if got := r.texts(); len(got) != 2 || !strings.HasPrefix(got[1], "2000 images were pushed") {
		t.Errorf("posts %q, want the first and a full summary", got)
	}
	m.Pass(10 * time.Minute)
	r.mustStep()
	m.Pass(12 * time.Hour)
	r.mustStep()
	if got := r.texts(); len(got) != 4 {
		t.Errorf("posts %q, want two more", got)
	}
	checkExact(t, r, cfg)
}

// The digest that waits can be pushed any number of times.
func TestAnnounceWaitingPushedAgain(t *testing.T) {
	t.Parallel()
	r, m := newManualRig(t, policy())
	r.push(image("a", 1).as("oss/app", "v1"))
	m.Pass(time.Minute)
	r.mustStep()
	b := image("b", 1)
	for i := range 150 {
		r.push(b.as("oss/app", fmt.Sprint("v2.", i%120)))
	}
	for range 2 {
		m.Pass(time.Minute)
		r.mustStep()
		for i := range 150 {
			r.push(b.as("oss/app", fmt.Sprint("v3.", i)))
		}
	}
	m.Pass(10 * time.Minute)
	r.mustStep()
	m.Pass(time.Minute)
	r.mustStep()
	if got := r.texts(); len(got) != 2 {
		t.Errorf("posts %q, want two", got)
	}
}

// Each post has the hashtags, and mentions the account, as facets.
func TestAnnounceFacets(t *testing.T) {
	t.Parallel()
	cfg := policy()
	cfg.Hashtags = []string{"oss"}
	cfg.Mention = func(string) post.Mention {
		return post.Mention{Handle: "alice.example.com", DID: "did:plc:ewvi7nxzyoun6zhxrhs64oiz"}
	}
	r, m := newManualRig(t, cfg)
	r.push(image("a", 1).as("oss/app", "v1"))
	m.Pass(time.Minute)
	r.mustStep()
	facets := fmt.Sprint(r.posts()[0]["facets"])
	for _, want := range []string{"app.bsky.richtext.facet#tag tag:oss", "app.bsky.richtext.facet#mention did:did:plc:ewvi7nxzyoun6zhxrhs64oiz"} {
		if !strings.Contains(facets, want) {
			t.Errorf("facets %s, want %s", facets, want)
		}
	}
}

// The process is killed at each of its operations, or some of them, while it announces what
// waits: nothing is lost and nothing is announced twice.
func TestAnnounceKilled(t *testing.T) {
	t.Parallel()
	for name, scene := range map[string]struct {
		cfg func() *announce.Config
		run func(r *rig, m *clocktest.Machine, step func())
		max int // posts
	}{
		"outage": {policy, func(r *rig, m *clocktest.Machine, step func()) {
			outage(r, m)
			step()
			for range 4 {
				m.Pass(5 * time.Minute)
				step()
			}
		}, 1 + 10 + 10},
		"cooldowns": {policy, func(r *rig, m *clocktest.Machine, step func()) {
			for i := range 40 {
				r.push(image(fmt.Sprint(i), 1).as(fmt.Sprint("oss/app", i%2), fmt.Sprint("v", i)))
				m.Pass(time.Minute)
				step()
			}
			m.Pass(10 * time.Minute)
			step()
		}, 2 * 6},
		"daily limit": {func() *announce.Config { cfg := policy(); cfg.PerDay = 5; return cfg }, func(r *rig, m *clocktest.Machine, step func()) {
			for i := range 30 {
				r.push(image(fmt.Sprint(i), 1).as(fmt.Sprint("oss/app", i%7), fmt.Sprint("v", i)))
				m.Pass(time.Minute)
				step()
			}
			m.Pass(12 * time.Hour)
			step()
		}, 5 + 1 + 5},
		"windows": {func() *announce.Config { cfg := policy(); cfg.Collect = 3 * time.Minute; return cfg }, func(r *rig, m *clocktest.Machine, step func()) {
			for i := range 20 {
				p := image(fmt.Sprint(i/2), 1) // each digest twice, a minute apart
				r.push(p.as(fmt.Sprint("oss/app", i/2%3), fmt.Sprint("v", i/2)))
				m.Pass(time.Minute)
				step()
			}
			m.Pass(20 * time.Minute)
			step()
		}, 9},
	} {
		for seed := range uint64(4) {
			t.Run(fmt.Sprint(name, " ", seed), func(t *testing.T) {
				t.Parallel()
				random := rand.New(rand.NewPCG(seed, 1))
				cfg := scene.cfg()
				r, m := newManualRig(t, cfg)
				r.crash = &crasher{}
				r.reopenCopy(cfg)
				kills := 0
				scene.run(r, m, func() { kills += r.killedStep(random, cfg, kills) })
				checkExact(t, r, cfg)
				if got := len(r.texts()); got > scene.max {
					t.Errorf("%d posts, want at most %d: %q", got, scene.max, r.texts())
				}
				if kills == 0 {
					t.Error("it was never killed")
				}
			})
		}
	}
}
