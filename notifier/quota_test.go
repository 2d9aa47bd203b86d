package notifier

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/inbound"
	"github.com/tidings-dev/tidings/notifier/quota"
)

// listed adds the layers as the registry has parsed them.
func (p Push) listed() Push {
	info, err := event.ReadManifest(p.MediaType, p.Payload)
	if err != nil {
		panic(err)
	}
	for _, l := range info.Layers {
		p.Listed = append(p.Listed, v1.Descriptor{MediaType: l.MediaType, Digest: digest.Digest(l.Digest), Size: l.Size})
	}
	return p
}

// exceeds tries a push that must be refused.
func (r *rig) exceeds(when string, p Push, used, push int64) {
	r.t.Helper()
	before := r.events()
	in, err := r.Intend(context.Background(), p.listed())
	var exceeded *quota.ExceededError
	if !errors.As(err, &exceeded) || exceeded.Used != used || exceeded.Push != push {
		r.t.Errorf("%s: got %v, want %d used and a push of %d", when, err, used, push)
	}
	if err == nil {
		in.Abandon()
	}
	if r.events() != before {
		r.t.Errorf("%s: an event was recorded", when)
	}
}

func TestQuota(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.tiers = quota.Tiers{Limits: map[string]int64{"free": 1000}, Default: "free"}
	r.reopen(nil)
	r.until("pending events are read", r.quotaLoaded)
	a, b := withLayers("a", map[string]int64{"os": 600, "a": 100}), withLayers("b", map[string]int64{"os": 600, "b": 300})
	c := withLayers("c", map[string]int64{"c": 1})
	r.push(a.listed())
	r.push(b.listed())
	r.exceeds("at the limit", c, 1000, 1)
	r.push(c.as("secret/app", "").listed())
	r.push(a.as("oss/other", "v2").listed())
	r.wantUsage("pushed", owner, 3, 1000)
	r.exceeds("written", c, 1000, 1)
	r.delete(b)
	r.push(c.listed())
	r.wantUsage("after a delete", owner, 3, 701)

	r.stop()
	r.open(nil)
	r.until("pending events are read", r.quotaLoaded)
	r.exceeds("after a restart", withLayers("d", map[string]int64{"d": 300}), 701, 300)
	in := r.intend(withLayers("d", map[string]int64{"d": 299}).listed())
	r.exceeds("with a push in progress", withLayers("e", map[string]int64{"e": 1}), 1000, 1)
	in.Abandon()
	in = r.intend(withLayers("e", map[string]int64{"e": 299}).listed())
	in.Abandon()
}

func (r *rig) quotaLoaded() bool {
	// A push that exceeds the limit in any case is accepted until then.
	in, err := r.Intend(context.Background(), withLayers("probe", map[string]int64{"probe": 1 << 40}).listed())
	if err == nil {
		in.Abandon()
	}
	return err != nil
}

// Pushes that the last process recorded and did not write count after a crash.
func TestQuotaOfPendingPushes(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.tiers = quota.Tiers{Limits: map[string]int64{"free": 1000}, Default: "free"}
	r.push(withLayers("a", map[string]int64{"a": 500}))
	r.drain()
	r.full.Store(true)
	r.push(withLayers("b", map[string]int64{"b": 400}).listed())
	r.reopen(nil)
	r.until("pending events are read", r.quotaLoaded)
	r.exceeds("pending", withLayers("c", map[string]int64{"c": 101}), 900, 101)
	r.delete(withLayers("a", map[string]int64{"a": 500}))
	r.push(withLayers("c", map[string]int64{"c": 101}).listed())
	r.full.Store(false)
	r.wantUsage("written", owner, 2, 501)
}

func TestNotifyQuota(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.tiers = quota.Tiers{Limits: map[string]int64{"free": 1000, "none": 0}, Owners: map[string]string{alice: "free", bob: "none"}}
	r.reopen(nil)
	probes := 0
	r.until("pending events are read", func() bool {
		probes++
		n := notificationOf(withLayers("probe", map[string]int64{fmt.Sprint("probe ", probes): 1}), bob)
		_, err := r.Notify(t.Context(), inbound.Notification(n.as(lexicon.VisibilityPublic)))
		return err != nil
	})
	a, b := withLayers("a", map[string]int64{"a": 900}), withLayers("b", map[string]int64{"b": 101})
	r.notify(notificationOf(a, alice))
	before := r.events()
	for _, did := range []string{alice, bob} {
		n := notificationOf(b, did).withKey(fmt.Sprint("key of ", did))
		for range 2 {
			_, err := r.Notify(t.Context(), inbound.Notification(n))
			var exceeded *quota.ExceededError
			if !errors.As(err, &exceeded) || exceeded.Owner != did || exceeded.Push != 101 {
				t.Errorf("%s: got %v", did, err)
			}
		}
	}
	if r.events() != before {
		t.Error("an event was recorded")
	}
	r.notify(notificationOf(b, alice).as(lexicon.VisibilityPrivate))
	r.notify(notificationOf(a, alice).as(lexicon.VisibilityPrivate))
	r.notify(notificationOf(b, alice).withKey("key of " + alice).as(lexicon.VisibilityPublic))
	r.wantUsage("after a is private", alice, 1, 101)
	r.notify(notificationOf(withLayers("large", map[string]int64{"large": 1 << 30}), "did:plc:carol"))
}
