package notifier

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/state"
)

// untagOnly deletes a tag as the registry does, which does not say what it pointed to.
func (r *rig) untagOnly(repository, tag string) {
	r.t.Helper()
	in, err := r.IntendDelete(context.Background(), Delete{Repository: repository, Tag: tag})
	if err != nil {
		r.t.Fatal(err)
	}
	r.storage.untag(Push{Repository: repository, Tag: tag})
	r.complete(in)
}

// With Retract the post of an image is deleted when the image is gone, once, whatever
// happens to the calls.
func TestAnnounceOnDelete(t *testing.T) {
	t.Parallel()
	a, b := image("a", 1), image("b", 1)
	v1 := a.as("oss/app", "v1")
	for name, test := range map[string]struct {
		do   []func(r *rig) // a minute and a step after each
		want []string
	}{
		"manifest deleted": {[]func(r *rig){func(r *rig) { r.delete(v1) }}, nil},
		"tag deleted":      {[]func(r *rig){func(r *rig) { r.untagOnly("oss/app", "v1") }}, nil},
		"another repository": {[]func(r *rig){func(r *rig) { r.storage.put(a.as("oss/x", "v1")); r.delete(a.as("oss/x", "v1")) }},
			[]string{"oss/app:v1 was pushed"}},
		"only a named tag is left": {[]func(r *rig){
			func(r *rig) { r.push(b.as("oss/b", "v1")); r.push(b.as("oss/b", "latest")) },
			func(r *rig) { r.untagOnly("oss/b", "v1") },
		}, []string{"oss/app:v1 was pushed"}},
		"a named tag deleted": {[]func(r *rig){
			func(r *rig) { r.push(b.as("oss/b", "v1")); r.push(b.as("oss/b", "latest")) },
			func(r *rig) { r.untagOnly("oss/b", "latest") },
		}, []string{"oss/app:v1 was pushed", "oss/b:v1 was pushed (also latest)"}},
		"one of two tags deleted": {[]func(r *rig){
			func(r *rig) { r.push(b.as("oss/b", "v1")); r.push(b.as("oss/b", "v1.0")) },
			func(r *rig) { r.untagOnly("oss/b", "v1") },
		}, []string{"oss/app:v1 was pushed", "oss/b:v1 was pushed (also v1.0)"}},
		"both tags deleted": {[]func(r *rig){
			func(r *rig) { r.push(b.as("oss/b", "v1")); r.push(b.as("oss/b", "v1.0")) },
			func(r *rig) { r.untagOnly("oss/b", "v1") },
			func(r *rig) { r.untagOnly("oss/b", "v1.0") },
		}, []string{"oss/app:v1 was pushed"}},
		"tag moved": {[]func(r *rig){func(r *rig) { r.push(b.as("oss/app", "v1")) }, func(*rig) {}},
			[]string{"oss/app:v1 was pushed", "oss/app:v1 was pushed"}},
		"tag moved, then deleted": {[]func(r *rig){func(r *rig) { r.push(b.as("oss/app", "v1")) }, func(*rig) {}, func(r *rig) { r.untagOnly("oss/app", "v1") }}, nil},
		"deleted and pushed at once": {[]func(r *rig){func(r *rig) { r.delete(v1); r.push(v1) }},
			[]string{"oss/app:v1 was pushed"}},
		"deleted and pushed later": {[]func(r *rig){func(r *rig) { r.delete(v1) }, func(r *rig) { r.push(v1) }},
			[]string{"oss/app:v1 was pushed"}},
		"reported as private": {[]func(r *rig){
			func(r *rig) { r.notifyCanceled(notificationOf(b.as("oss/b", "v1"), owner)) },
			func(r *rig) {
				r.notifyCanceled(notificationOf(b.as("oss/b", "v1"), owner).as(lexicon.VisibilityPrivate))
			},
		}, []string{"oss/app:v1 was pushed"}},
		"reported as private, then as public": {[]func(r *rig){
			func(r *rig) { r.notifyCanceled(notificationOf(b.as("oss/b", "v1"), owner)) },
			func(r *rig) {
				r.notifyCanceled(notificationOf(b.as("oss/b", "v1"), owner).as(lexicon.VisibilityPrivate))
				r.notifyCanceled(notificationOf(b.as("oss/b", "v1"), owner).as(lexicon.VisibilityPublic))
			},
		}, []string{"oss/app:v1 was pushed", "oss/b:v1 was pushed"}},
	} {
		for _, faults := range [][]fault{nil, {lostRequest, lostRequest}, {lostAnswer}, {lostRequest, lostAnswer}} {
			t.Run(fmt.Sprint(name, faults), func(t *testing.T) {
				t.Parallel()
				cfg := policy()
				cfg.Retract, cfg.Cooldown = true, 0
				cfg.Tag = func(tag string) bool { return strings.HasPrefix(tag, "v") }
				r, m := newManualRig(t, cfg)
				settle := func() {
					for range 5 {
						m.Pass(time.Minute)
						r.announceStep()
					}
					r.reopenCopy(cfg)
					r.mustStep()
				}
				r.push(v1)
				settle()
				for _, do := range test.do {
					do(r)
					r.account.fail(faults...)
					settle()
				}
				got := r.texts()
				slices.Sort(got)
				if !slices.Equal(got, test.want) {
					t.Errorf("posts %q, want %q", got, test.want)
				}
				left := 0
				if err := r.state.Scan(state.Prefix(state.Retractions), func(_, _ []byte) error { left++; return nil }); err != nil || left > 0 {
					t.Errorf("%d posts are still to be deleted, %v", left, err)
				}
				rows := 0
				if err := r.state.Scan(state.Prefix(state.PostedTags), func(_, _ []byte) error { rows++; return nil }); err != nil || (rows > 0) != (len(test.want) > 0) {
					t.Errorf("%d posts are left, and the digests of %d tags, %v", len(test.want), rows, err)
				}
			})
		}
	}
}

// Without Retract posts stay, and so do summaries and posts about a newer version.
func TestAnnounceOnDeleteKeeps(t *testing.T) {
	t.Parallel()
	for _, retract := range []bool{false, true} {
		cfg := policy()
		cfg.Retract = retract
		r, m := newManualRig(t, cfg)
		pushes := []Push{image("a", 1).as("oss/app", "v1"), image("b", 1).as("oss/app", "v2"), image("c", 1).as("oss/app", "v3")}
		for _, p := range pushes {
			r.push(p)
			m.Pass(time.Minute)
			r.mustStep()
		}
		m.Pass(10 * time.Minute)
		r.mustStep()
		old := image("d", 1).as("oss/old", "v1")
		r.push(old)
		m.Pass(2 * time.Hour)
		r.mustStep()
		if got := len(r.texts()); got != 3 {
			t.Fatalf("%d posts, want v1, v3 with v2, and a summary: %q", got, r.texts())
		}
		r.delete(pushes[1])
		r.delete(old)
		r.delete(pushes[0])
		r.mustStep()
		want := map[bool]int{false: 3, true: 2}[retract]
		if got := r.texts(); len(got) != want {
			t.Errorf("retract %v: posts %q, want %d", retract, got, want)
		}
	}
}

// A post that cannot be deleted at the moment delays no other post.
func TestAnnounceDeleteDelays(t *testing.T) {
	t.Parallel()
	cfg := policy()
	cfg.Retract, cfg.Cooldown = true, 0
	r, m := newManualRig(t, cfg)
	a, b := image("a", 1).as("oss/app", "v1"), image("b", 1).as("oss/app", "v2")
	r.push(a)
	m.Pass(time.Minute)
	r.mustStep()
	r.delete(a)
	r.account.fail(lostRequest)
	r.mustStep()
	r.push(b)
	m.Pass(30 * time.Second)
	r.mustStep()
	if got, want := r.texts(), []string{"oss/app:v1 was pushed", "oss/app:v2 was pushed"}; !slices.Equal(got, want) {
		t.Errorf("before the next attempt: %q, want %q", got, want)
	}
	m.Pass(time.Minute)
	r.mustStep()
	if got, want := r.texts(), []string{"oss/app:v2 was pushed"}; !slices.Equal(got, want) {
		t.Errorf("after it: %q, want %q", got, want)
	}
}

// The process is killed while posts are written and deleted.
func TestAnnounceOnDeleteKilled(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 2))
			cfg := policy()
			cfg.Retract, cfg.Cooldown = true, 0
			r, m := newManualRig(t, cfg)
			r.crash = &crasher{}
			r.reopenCopy(cfg)
			var want []string
			kills := 0
			for i := range 12 {
				p := image(fmt.Sprint(i), 1).as("oss/app", fmt.Sprint("v", i))
				r.push(p)
				m.Pass(time.Duration(random.IntN(90)) * time.Second)
				kills += r.killedStep(random, cfg, kills)
				switch random.IntN(4) {
				case 0:
					r.delete(p)
				case 1:
					r.untagOnly("oss/app", p.Tag)
				case 2:
					r.delete(p)
					m.Pass(time.Minute)
					kills += r.killedStep(random, cfg, kills)
					r.push(p)
					fallthrough
				default:
					want = append(want, fmt.Sprintf("oss/app:v%d was pushed", i))
				}
				m.Pass(time.Minute)
				kills += r.killedStep(random, cfg, kills)
			}
			got := r.texts()
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) || kills == 0 {
				t.Errorf("after %d kills: posts %q, want %q", kills, got, want)
			}
		})
	}
}
