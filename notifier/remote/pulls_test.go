package remote_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/internal/faultproxy"
	"github.com/tidings-dev/tidings/notifier/deadletters"
	"github.com/tidings-dev/tidings/notifier/journal"
)

// Pulls of public repositories are reported, after the pushes.
func TestPulls(t *testing.T) {
	t.Parallel()
	for name, cfg := range holds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, cfg)
			r.pulls = true
			r.open()
			m, hidden := image("oss/app", "v1", "a", 1), image("secret/app", "v1", "b", 1)
			r.hold.Start(faultproxy.Fault{Kind: faultproxy.Cut})
			r.push(m)
			for range 3 {
				r.pull(m)
				r.pull(hidden)
			}
			r.hold.End()
			r.drainPulls(3, 3)
			inputs := r.inputs()
			if len(inputs) != 4 || inputs[0].Operation != "push" {
				t.Errorf("calls %+v", inputs)
			}
			for _, in := range inputs[1:] {
				if in.Operation != "pull" || in.Repository != "oss/app" || in.Tag != "v1" || in.ManifestDigest != m.Digest || in.UserDID != owner {
					t.Errorf("pull %+v", in)
				}
			}
			if c := r.hold.Counts(owner, "oss/app"); c.Pulls != 3 || c.Pushes != 1 {
				t.Errorf("counts %+v", c)
			}
			r.restart()
			r.pull(m)
			r.drainPulls(4, 4)
			if c := r.hold.Counts(owner, "oss/app"); c.Pulls != 4 {
				t.Errorf("after a restart: %+v", c)
			}
		})
	}
}

// A push that is made while the call of a pull fails is reported before the pull.
func TestPushBeforePull(t *testing.T) {
	t.Parallel()
	r := newRig(t, holds["keys"])
	r.pulls = true
	r.open()
	pulled, pushed := image("oss/app", "v1", "a", 1), image("oss/app", "v2", "b", 1)
	r.push(pulled)
	r.drain()
	cut := faultproxy.Fault{Kind: faultproxy.Cut, Method: lexicon.NSIDNotifyManifest}
	r.hold.Start(cut)
	failed := func(least int) {
		for calls := 0; calls < least; {
			r.until("a call fails", func() bool { n := r.hold.Start(cut); calls += n; return n > 0 })
		}
	}
	r.pull(pulled)
	failed(1)
	r.push(pushed)
	failed(6) // the first ones may be of the pull, if its attempt began before the push
	r.hold.End()
	r.drainPulls(1, 1)
	var got []string
	for _, in := range r.inputs() {
		got = append(got, in.Operation+" "+in.Tag)
	}
	if want := []string{"push v1", "push v2", "pull v1"}; !slices.Equal(got, want) {
		t.Errorf("calls %q, want %q", got, want)
	}
}

// A pull whose answer is lost is counted exactly once by a hold that honors keys, and at
// most once by any other.
func TestPullFaults(t *testing.T) {
	t.Parallel()
	for name, cfg := range holds {
		for _, delivered := range []bool{false, true} {
			for _, crash := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/delivered %v/crash %v", name, delivered, crash), func(t *testing.T) {
					t.Parallel()
					r := newRig(t, cfg)
					r.pulls = true
					r.open()
					m := image("oss/app", "v1", "a", 1)
					r.push(m)
					r.drain()
					f := faultproxy.Fault{Kind: faultproxy.Cut, Delivered: delivered, Method: lexicon.NSIDNotifyManifest}
					r.hold.Start(f)
					r.pull(m)
					r.until("the call fails", func() bool { return r.hold.Start(f) > 0 })
					if crash {
						r.crash()
					}
					r.hold.End()
					r.pull(m)
					want, lost := 2, 0
					if !cfg.Keys && !delivered {
						want = 1
					}
					if !cfg.Keys {
						lost = 1
					}
					r.drainPulls(2, want)
					if c := r.hold.Counts(owner, "oss/app"); c.Pulls != want {
						t.Errorf("%d pulls counted, want %d", c.Pulls, want)
					}
					letters, err := r.dead.Count()
					if got := letters[deadletters.Box{Sink: "remote", Stream: journal.Pulls}]; err != nil || got != lost && !crash {
						t.Errorf("%d dead letters, want %d; %v", got, lost, err)
					}
				})
			}
		}
	}
}
