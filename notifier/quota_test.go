package notifier

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/deadletters"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/inbound"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/owners"
	"github.com/tidings-dev/tidings/notifier/quota"
	"github.com/tidings-dev/tidings/notifier/records"
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

// freeTier limits all owners to 1000 bytes.
var freeTier = quota.Tiers{Limits: map[string]int64{"free": 1000}, Default: "free"}

// newLimitedRig returns a rig with the free tier, which checks pushes.
func newLimitedRig(t *testing.T) *rig {
	t.Helper()
	r := newRig(t, nil)
	r.tiers = freeTier
	r.reopen(nil)
	r.until("pending events are read", r.quotaLoaded)
	return r
}

func TestQuota(t *testing.T) {
	t.Parallel()
	r := newLimitedRig(t)
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
	r.tiers = freeTier
	r.push(withLayers("a", map[string]int64{"a": 500}))
	r.drain()
	r.full.Store(true)
	r.push(withLayers("b", map[string]int64{"b": 400}).listed())
	r.reopen(nil)
	r.until("pending events are read", r.quotaLoaded)
	r.exceeds("pending", withLayers("c", map[string]int64{"c": 101}), 900, 101)
	r.delete(withLayers("a", map[string]int64{"a": 500}))
	r.full.Store(false)
	r.push(withLayers("c", map[string]int64{"c": 101}).listed()) // waits for the delete
	r.wantUsage("written", owner, 2, 501)
}

// A client that goes away while its push waits for a delete does not get around the limit.
func TestQuotaOfClientThatIsGone(t *testing.T) {
	t.Parallel()
	r := newLimitedRig(t)
	r.full.Store(true)
	r.delete(withLayers("other", map[string]int64{"other": 1}))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	before := r.events()
	huge := notificationOf(withLayers("huge", map[string]int64{"huge": 1001}), alice)
	_, err := r.Notify(ctx, inbound.Notification(huge.as(lexicon.VisibilityPublic)))
	var exceeded *quota.ExceededError
	if !errors.As(err, &exceeded) || r.events() != before {
		t.Errorf("got %v, and %d events", err, r.events()-before)
	}
}

// A push counts towards the limit of an owner that is named by a handle, if it is resolved.
func TestQuotaOfHandle(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	resolver := newFakeHandles()
	r.owners, r.handles = []owners.Rule{{Repositories: []string{"team/*"}, Owner: owners.Parse("alice.example.com")}}, resolver
	r.tiers = freeTier
	r.reopen(nil)
	r.until("pending events are read", r.quotaLoaded)
	a, b, c := withLayers("a", map[string]int64{"a": 900}), withLayers("b", map[string]int64{"b": 200}), withLayers("c", map[string]int64{"c": 1})
	r.push(a.as("team/app", "v1").listed())
	r.push(b.as("team/app", "v2").listed())
	resolver.set("alice.example.com", alice)
	r.until("the pushes are repeated", func() bool { return r.parked.Len() == 0 })
	r.wantUsage("pushed before the handle was resolved", alice, 2, 1100)
	r.exceeds("afterwards", c.as("team/app", "v3"), 1100, 1)
	r.push(a.as("team/app", "v4").listed())
}

// A purge frees the bytes of the owner of each of the repository's images.
func TestQuotaAfterPurge(t *testing.T) {
	t.Parallel()
	r := newLimitedRig(t)
	a := notificationOf(withLayers("a", map[string]int64{"a": 900}), alice)
	r.notify(a)
	r.drain()
	if _, err := r.stores.Purge(t.Context(), alice+"/"+a.Repository); err != nil {
		t.Fatal(err)
	}
	r.notify(notificationOf(withLayers("b", map[string]int64{"b": 200}), alice)) // waits for the purge
	r.wantUsage("after the purge", alice, 1, 200)
}

// Until the usage of an earlier version's ledger is counted, no push is refused.
func TestQuotaWhileUsageIsCounted(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	a := withLayers("a", map[string]int64{"a": 1500})
	r.push(a.listed())
	r.drain()
	r.stopSinks()
	r.forgetUsage()
	r.tiers = freeTier
	r.full.Store(true)
	r.reopen(nil)
	r.push(a.as("oss/app", "v2").listed())
	r.push(withLayers("b", map[string]int64{"b": 1}).listed())
	r.full.Store(false)
	r.until("the usage is counted", r.quotaLoaded)
	r.wantUsage("once it is counted", owner, 2, 1501)
	r.push(a.as("oss/app", "v3").listed())
	r.exceeds("a new layer", withLayers("c", map[string]int64{"c": 1}), 1501, 1)
}

// Pushes that are repeated, and retried, count as soon as they are recorded again.
func TestQuotaOfRetries(t *testing.T) {
	t.Parallel()
	r := newLimitedRig(t)
	r.refuse(lexicon.NSIDLayer)
	r.push(withLayers("a", map[string]int64{"a": 900}).listed())
	r.drain()
	r.refuse("")
	letters := r.letters()
	if len(letters) != 1 {
		t.Fatalf("letters %+v", letters)
	}
	r.account.down.Store(true)
	if err := r.RetryLetter(t.Context(), deadletters.Box{Sink: records.Name, Stream: journal.Pushes}, letters[0].First); err != nil {
		t.Fatal(err)
	}
	r.exceeds("while the retry is pending", withLayers("b", map[string]int64{"b": 200}), 900, 200)
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
