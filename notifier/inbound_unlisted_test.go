package notifier

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/inbound"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/state"
)

// stranger is a pull that an account reports which is not configured.
func (n notification) stranger() notification {
	n = n.pulled()
	n.Issuer, n.Unlisted = "did:plc:stranger", true
	return n
}

const strangerAnswer = `{"success":true,"operation":"pull","statsUpdated":false}`

// The pull of an unlisted account counts for a public image that was pushed here or
// reported, and the answer is the same for all others.
func TestUnlistedPulls(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	ours, theirs := image("a", 2).as("oss/app", "v1"), image("b", 2).as("oss/app", "v1")
	secret, hidden := image("s", 1).as("secret/app", "v1"), image("p", 1).as("oss/app", "private")
	unknown := image("u", 1).as("oss/app", "v1")
	elsewhere := image("a", 2).as("oss/invented", "v1")
	r.push(ours)
	r.push(secret)
	r.notify(notificationOf(theirs, alice))
	r.notify(notificationOf(secret, bob))
	r.notify(notificationOf(hidden, alice).as(lexicon.VisibilityPrivate))
	r.drain()
	moved := image("c", 1).as("oss/app", "v1") // the tag refers to another digest now
	r.notify(notificationOf(moved, alice))
	names := r.names()

	for _, tc := range []struct {
		name string
		n    notification
		of   string // the repository that the pull is counted for; empty: none
	}{
		{"ours", notificationOf(ours, owner), "oss/app"},
		{"reported", notificationOf(moved, alice), alice + "/oss/app"},
		{"reported, its tag has moved", notificationOf(theirs, alice), alice + "/oss/app"},
		{"private repository", notificationOf(secret, owner), ""},
		{"private repository of another owner", notificationOf(secret, bob), ""},
		{"private image", notificationOf(hidden, alice), ""},
		{"unknown digest", notificationOf(unknown, owner), ""},
		{"unknown repository", notificationOf(elsewhere, owner), ""},
		{"unknown owner", notificationOf(ours, bob), ""},
	} {
		before := r.allCounts()
		if got := r.notify(tc.n.stranger()); got != strangerAnswer {
			t.Errorf("%s: %s", tc.name, got)
		}
		r.drain()
		want := before
		if tc.of != "" {
			want = r.allCounts()
			want[tc.of] = before[tc.of] + 1
		}
		if got := r.allCounts(); !reflect.DeepEqual(got, want) || (tc.of == "") != reflect.DeepEqual(got, before) {
			t.Errorf("%s: got %v, before %v", tc.name, got, before)
		}
	}
	if got := r.names(); !reflect.DeepEqual(got, names) {
		t.Errorf("repositories are %v, want %v", got, names)
	}
	// A configured account's pulls count for any image.
	r.notify(notificationOf(elsewhere, bob).pulled())
	r.wantCounts(bob+"/oss/invented", map[counts.Class]int64{counts.Pull: 1})
}

// names are the repositories with counts.
func (r *rig) names() (names []string) {
	r.t.Helper()
	all, err := r.counter.Repositories(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	for _, totals := range all {
		names = append(names, totals.Name)
	}
	return names
}

// allCounts are the pulls by repository.
func (r *rig) allCounts() map[string]int64 {
	r.t.Helper()
	pulls := map[string]int64{}
	for _, name := range r.names() {
		pulls[name] = r.counts(name)[counts.Pull]
	}
	return pulls
}

// What an unlisted account says of an image does not change how the requests of others are
// classified.
func TestUnlistedTeachesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	p := image("a", 2).as("oss/app", "v1")
	r.notify(notificationOf(p, alice))

	n := notificationOf(p, alice).stranger()
	n.Tag = "sha256-" + strings.TrimPrefix(p.Digest, "sha256:")
	r.notify(n)
	n = notificationOf(image("i", 1).as("oss/app", "v1"), alice).stranger()
	n.Manifest = lexicon.ManifestInfo{MediaType: "application/vnd.oci.image.index.v1+json", Manifests: []lexicon.Descriptor{{Digest: p.Digest}}}
	r.notify(n)
	r.drain()
	before := r.counts(alice + "/oss/app")

	byDigest := notificationOf(p, alice).pulled()
	byDigest.Tag = ""
	r.notify(byDigest)
	r.drain()
	after := r.counts(alice + "/oss/app")
	if after[counts.Pull] != before[counts.Pull]+1 || after[counts.Artifact] != 0 || after[counts.Child] != 0 {
		t.Errorf("a pull by digest is counted as %v, before it %v", after, before)
	}
}

// A retried call of an unlisted account has one effect, also after a restart. Its names are
// kept apart from those of others.
func TestUnlistedRetry(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	p := image("a", 2).as("oss/app", "v1")
	r.notify(notificationOf(p, alice))
	first := notificationOf(p, alice).stranger().withKey("one")
	for range 2 {
		again := notificationOf(p, alice).stranger().withKey("one")
		for _, n := range []notification{first, again} {
			out, err := r.Notify(t.Context(), inbound.Notification(n))
			if err == nil && asJSON(t, out) != strangerAnswer || err != nil && !errors.Is(err, inbound.ErrTokenUsed) {
				t.Errorf("got %+v, %v", out, err)
			}
		}
		r.drain()
		r.wantCounts(alice+"/oss/app", map[counts.Class]int64{counts.Push: 1, counts.Pull: 1})
		r.stop()
		r.open(nil)
	}
	other := notificationOf(p, bob).stranger().withKey("one")
	if _, err := r.Notify(t.Context(), inbound.Notification(other)); !errors.Is(err, inbound.ErrKeyReused) {
		t.Errorf("another input with the key: %v", err)
	}
	names := map[string]int{}
	for _, prefix := range []string{state.InboundBySeq, state.InboundBrief} {
		if err := r.state.Scan(state.Prefix(prefix), func(_, _ []byte) error { names[prefix]++; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if want := fmt.Sprint(map[string]int{state.InboundBySeq: 1, state.InboundBrief: 2}); fmt.Sprint(names) != want {
		t.Errorf("got %v names, want %v", names, want)
	}
}

// The event of an unlisted account keeps no more of its manifest than the media type.
func TestUnlistedEvent(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	n := inbound.Notification(notificationOf(image("a", 50).as("oss/app", "v1"), alice).stranger())
	e, err := r.notifiedEvent(&n)
	if err != nil {
		t.Fatal(err)
	}
	if raw, err := e.Encode(); err != nil || len(raw) > 1000 {
		t.Errorf("the event has %d bytes, %v", len(raw), err)
	}
	if e.Kind != event.KindImage || !e.Unlisted || !e.Foreign {
		t.Errorf("got %+v", e)
	}
}

// Unlisted accounts cannot fill the journal while a sink is behind, so that it drops pushes.
// Configured accounts report as before.
func TestUnlistedWhileJournalIsHalfFull(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	p := image("a", 2).as("oss/app", "v1")
	r.notify(notificationOf(p, alice))
	r.stop()
	r.limit = 128 << 10
	r.open(nil)
	r.account.down.Store(true)
	r.push(image("pending", 2).as("oss/app", "v2")) // the records sink waits with it
	refused := 0
	for range 1000 {
		if _, err := r.Notify(t.Context(), inbound.Notification(notificationOf(p, alice).stranger())); errors.Is(err, inbound.ErrBusy) {
			refused++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if refused < 100 || refused > 900 {
		t.Errorf("%d calls were refused", refused)
	}
	if got := r.notify(notificationOf(p, alice).pulled()); !strings.Contains(got, `"statsUpdated":true`) {
		t.Errorf("a configured account: %s", got)
	}
	if got := r.failed("records"); got != 0 {
		t.Errorf("the records sink lost %d events", got)
	}
	r.account.down.Store(false)
	r.drain()
	r.until("the journal has deleted what was processed", func() bool { return !r.journal.HalfFull(journal.Pushes) })
	if got := r.notify(notificationOf(p, alice).stranger()); got != strangerAnswer {
		t.Errorf("afterwards: %s", got)
	}
}
