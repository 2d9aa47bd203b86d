package remote_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/remote/remotetest"
	"github.com/tidings-dev/tidings/internal/faultproxy"
)

// holds are the two kinds of holds: those that honor keys and those that do not.
var holds = map[string]remotetest.Config{
	"keys":    {Keys: true, Audiences: []string{"#atcr_hold"}},
	"no keys": {},
}

// Each push is one call, with its fields, and the answer is in its row.
func TestPushes(t *testing.T) {
	t.Parallel()
	for name, cfg := range holds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, cfg)
			r.open()
			m := image("oss/app", "v1.0.0", "a", 2)
			r.push(m)
			m.Tag = "latest"
			r.push(m)
			r.push(image("secret/app", "v1", "b", 1))
			r.push(image("oss/other", "", "c", 0))
			r.drain()
			byTag := map[string]lexicon.NotifyManifestInput{}
			for _, in := range r.inputs() {
				byTag[in.Tag] = in
			}
			first, err := json.Marshal(byTag["v1.0.0"])
			if err != nil {
				t.Fatal(err)
			}
			var manifest map[string]any
			if err := json.Unmarshal(m.Payload, &manifest); err != nil {
				t.Fatal(err)
			}
			delete(manifest, "annotations")
			delete(manifest, "schemaVersion")
			want, err := json.Marshal(map[string]any{
				"repository": "oss/app", "tag": "v1.0.0", "userDid": owner, "manifestDigest": m.Digest, "operation": "push", "manifest": manifest,
			})
			if err != nil {
				t.Fatal(err)
			}
			if !sameJSON(t, first, want) {
				t.Errorf("got  %s\nwant %s", first, want)
			}
			ids := map[string]bool{}
			for _, p := range r.latest() {
				ids[p.ID] = true
				switch {
				case p.Repository == "secret/app":
					if p.State != "counted" || p.Remote != nil {
						t.Errorf("a private push: %+v", p)
					}
				case p.State != "done" || p.Remote == nil || !p.Remote.StatsUpdated || *p.LayersRecorded != p.Layers || *p.Remote.PostCreated || p.Reason != "":
					t.Errorf("push %+v, answer %+v", p, p.Remote)
				}
			}
			if len(byTag) != 3 || len(r.inputs()) != 3 {
				t.Errorf("%d calls", len(r.inputs()))
			}
			for _, c := range r.hold.Calls() {
				if !ids[c.Key] {
					t.Errorf("key %q is no ID of %v", c.Key, ids)
				}
			}
			if c := r.hold.Counts(owner, "oss/app"); c.Pushes != 2 {
				t.Errorf("%d pushes counted", c.Pushes)
			}
		})
	}
}

func sameJSON(t *testing.T, a, b []byte) bool {
	t.Helper()
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		t.Fatalf("not JSON: %s, %s", a, b)
	}
	return fmt.Sprint(x) == fmt.Sprint(y)
}

// The pushes of a repository are reported in their order, whatever fails.
func TestOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t, remotetest.Config{Keys: true})
	r.open()
	r.hold.Start(faultproxy.Fault{Kind: faultproxy.Cut})
	for i := range 30 {
		r.push(image(fmt.Sprintf("oss/app%d", i%3), fmt.Sprintf("v%02d", i), fmt.Sprint("m", i), 1))
	}
	r.hold.End()
	r.drain()
	last := map[string]string{}
	inputs := r.inputs()
	for _, in := range inputs {
		if in.Tag <= last[in.Repository] {
			t.Errorf("%s: %s after %s", in.Repository, in.Tag, last[in.Repository])
		}
		last[in.Repository] = in.Tag
	}
	if len(inputs) != 30 {
		t.Errorf("%d pushes were reported", len(inputs))
	}
}

// After each fault, before or after the call was applied, each push is recorded once and
// counted once, also if the process crashes meanwhile.
func TestFaults(t *testing.T) {
	t.Parallel()
	faults := []faultproxy.Fault{
		{Kind: faultproxy.Cut}, {Kind: faultproxy.Cut, Delivered: true}, {Kind: faultproxy.Truncate, Delivered: true},
		{Kind: faultproxy.BadGateway}, {Kind: faultproxy.BadGateway, Delivered: true}, {Kind: faultproxy.HTML}, {Kind: faultproxy.HTML, Delivered: true},
		{Kind: faultproxy.RateLimit}, {Kind: faultproxy.RetryAfter, For: 30e9},
	}
	for name, cfg := range holds {
		for _, f := range faults {
			f.Method = lexicon.NSIDNotifyManifest
			for _, crash := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/crash %v", name, f, crash), func(t *testing.T) {
					t.Parallel()
					r := newRig(t, cfg)
					r.open()
					r.push(image("oss/app", "v0", "before", 1)) // so that it is known whether the hold honors keys
					r.drain()
					r.hold.Start(f)
					for i := range 3 {
						r.push(image(fmt.Sprint("oss/app", i%2), fmt.Sprint("v", i), fmt.Sprint("m", i), 2))
					}
					r.until("a call fails", func() bool { return r.hold.Start(f) > 0 })
					if crash {
						r.crash()
					}
					r.hold.End()
					r.drain()
					r.checkLayers(7)
					if got := r.hold.Counts(owner, "oss/app0").Pushes + r.hold.Counts(owner, "oss/app1").Pushes; got != 3 {
						t.Errorf("%d pushes were counted, want 3", got)
					}
					for _, p := range r.latest() {
						if p.State != "done" || p.LayersRecorded == nil || *p.LayersRecorded != p.Layers {
							t.Errorf("push %+v, answer %+v", p, p.Remote)
						}
					}
				})
			}
		}
	}
}

// A hold without keys that was interrupted while it wrote the records of a push gets those
// that are missing.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	r := newRig(t, remotetest.Config{})
	r.open()
	r.hold.Interrupt(1)
	r.push(image("oss/app", "v1", "a", 3))
	r.drain()
	r.checkLayers(3)
	if p := r.latest()[0]; p.State != "done" || *p.LayersRecorded != 3 {
		t.Errorf("push %+v", p)
	}
}

// A private push leaves nothing at a hold without keys, so after a lost answer it is not
// repeated.
func TestUncertain(t *testing.T) {
	t.Parallel()
	for name, cfg := range holds {
		for _, delivered := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " ", delivered), func(t *testing.T) {
				t.Parallel()
				r := newRig(t, cfg)
				r.private = true
				r.open()
				r.push(image("secret/app", "v0", "before", 1))
				r.drain()
				f := faultproxy.Fault{Kind: faultproxy.Cut, Delivered: delivered, Method: lexicon.NSIDNotifyManifest}
				r.hold.Start(f)
				r.push(image("secret/app", "v1", "a", 3))
				r.until("the call fails", func() bool { return r.hold.Start(f) > 0 })
				r.hold.End()
				r.drain()
				p, want := r.latest()[0], 2
				if !cfg.Keys && !delivered {
					want = 1 // lost rather than doubled
				}
				if got := r.hold.Counts(owner, "secret/app").Pushes; got != want || p.State != "done" {
					t.Errorf("%d pushes were counted, want %d: %+v", got, want, p)
				}
				if lost := strings.Contains(p.Reason, "it is not repeated"); lost == cfg.Keys {
					t.Errorf("the reason is %q", p.Reason)
				}
				for _, in := range r.inputs() {
					if in.Visibility != "private" {
						t.Errorf("visibility %q", in.Visibility)
					}
				}
				r.checkLayers(0)
			})
		}
	}
}

// A call that the hold refuses for good is a dead letter, and the next pushes go on.
func TestRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status int
		name   string
	}{{400, "InvalidOperation"}, {403, "UserMismatch"}, {403, "QuotaExceeded"}, {413, "PayloadTooLargeError"}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, remotetest.Config{Keys: true})
			r.open()
			r.hold.Refuse(c.status, nil, fmt.Sprintf(`{"error":%q,"message":"not this one: $TOKEN"}`, c.name))
			r.push(image("oss/app", "v1", "a", 1))
			r.drain()
			r.hold.Refuse(0, nil, "")
			r.push(image("oss/app", "v2", "b", 1))
			r.drain()
			pushes := r.latest()
			if p := pushes[1]; p.State != "failed" || !strings.Contains(p.Reason, c.name+": not this one") || strings.Contains(p.Reason, "eyJ") {
				t.Errorf("the refused push: %+v", p)
			}
			if p := pushes[0]; p.State != "done" {
				t.Errorf("the next push: %+v", p)
			}
			for _, h := range r.Health() {
				if h.Sink == "remote" && (h.Failed != 1 || h.State != "ok") {
					t.Errorf("health %+v", h)
				}
			}
		})
	}
}

// While the hold does not accept the registry, nothing is lost and health is paused.
func TestSuspended(t *testing.T) {
	t.Parallel()
	r := newRig(t, remotetest.Config{Keys: true})
	r.open()
	r.hold.Refuse(401, nil, `{"error":"AuthenticationRequired","message":"not a member"}`)
	for i := range 3 {
		r.push(image(fmt.Sprint("oss/app", i), "v1", fmt.Sprint(i), 1))
	}
	r.until("the sink is paused", func() bool {
		for _, h := range r.Health() {
			if h.Sink == "remote" && h.Suspended() && strings.Contains(h.Reason, "the hold of remote") {
				return true
			}
		}
		return false
	})
	r.hold.Refuse(0, nil, "")
	r.drain()
	r.checkLayers(3)
	r.until("the sink is not paused", func() bool {
		for _, h := range r.Health() {
			if h.Paused() {
				return false
			}
		}
		return true
	})
}

// A hold that answers one push with status 500 each time gets the pushes of other
// repositories, and that push is given up. If it fails for all, it is an outage.
func TestPoison(t *testing.T) {
	t.Parallel()
	r := newRig(t, remotetest.Config{Keys: true})
	r.open()
	r.hold.Refuse(500, nil, `{"error":"InternalServerError","message":"oops"}`)
	for i := range 6 {
		r.push(image(fmt.Sprint("oss/app", i%2), fmt.Sprint("v", i), fmt.Sprint(i), 1))
	}
	before := len(r.hold.Calls())
	r.until("many calls fail", func() bool { return len(r.hold.Calls()) > before+8 })
	r.hold.Refuse(0, nil, "")
	r.drain()
	r.checkLayers(6)
	if letters, err := r.dead.Count(); err != nil || len(letters) != 0 {
		t.Errorf("after an outage: %v, %v", letters, err)
	}

	r.hold.FailFor("oss/bad")
	before = len(r.hold.Calls())
	r.push(image("oss/bad", "v1", "bad", 1))
	r.until("it has failed", func() bool { return len(r.hold.Calls()) >= before+3 })
	r.push(image("oss/good", "v1", "good", 1))
	r.drain()
	r.checkLayers(7)
	pushes := r.latest()
	if p := pushes[1]; p.State != "failed" || !strings.Contains(p.Reason, "this repository makes it fail") {
		t.Errorf("the push that makes it fail: %+v", p)
	}
	if p := pushes[0]; p.State != "done" {
		t.Errorf("the other push: %+v", p)
	}
}

// What may not be published any more is not sent again, and what was deleted is not sent.
func TestRecheck(t *testing.T) {
	t.Parallel()
	r := newRig(t, remotetest.Config{Keys: true})
	r.open()
	r.hold.Start(faultproxy.Fault{Kind: faultproxy.Cut})
	deleted, hidden := image("oss/app", "v1", "a", 1), image("oss/other", "v1", "b", 1)
	r.push(deleted)
	r.push(hidden)
	hits := 0
	r.until("the calls fail", func() bool { hits += r.hold.Start(faultproxy.Fault{Kind: faultproxy.Cut}); return hits > 2 })
	r.storage.delete(deleted.Digest)
	r.until("the deleted one is dropped", func() bool { return r.latest()[1].State == "done" })
	r.hidden.Store(true)
	r.drain()
	r.hold.End()
	if n := len(r.inputs()); n != 0 {
		t.Errorf("%d calls were applied", n)
	}
	if p := r.latest()[1]; p.Remote != nil || !strings.Contains(p.Reason+p.State, "counted") {
		t.Errorf("the deleted push: %+v", p)
	}
}

// What was pushed before the registry reports is not reported.
func TestBegin(t *testing.T) {
	t.Parallel()
	r := newRig(t, remotetest.Config{Keys: true})
	r.open()
	r.push(image("oss/app", "v1", "a", 1))
	r.drain()
	r.restart()
	r.push(image("oss/app", "v2", "b", 1))
	r.drain()
	if got := len(r.inputs()); got != 2 {
		t.Errorf("%d calls, want 2", got)
	}
}
