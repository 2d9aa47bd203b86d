package notifier

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/announce"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/inbound"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/pushrow"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/stats"
)

const (
	alice  = "did:plc:alice"
	bob    = "did:plc:bob"
	issuer = "did:web:registry.test"
)

var tokens struct {
	sync.Mutex
	last int
}

// A notification is an inbound.Notification, with shorthands for tests.
type notification inbound.Notification

// notificationOf reports a push, with a new token.
func notificationOf(p Push, userDID string) notification {
	tokens.Lock()
	defer tokens.Unlock()
	tokens.last++
	info, err := event.ReadManifest(p.MediaType, p.Payload)
	if err != nil {
		panic(err)
	}
	return notification{
		NotifyManifestInput: lexicon.NotifyManifestInput{
			Repository: p.Repository, Tag: p.Tag, UserDID: userDID, ManifestDigest: p.Digest, Manifest: info,
		},
		Issuer: issuer, Token: fmt.Sprint("token ", tokens.last),
	}
}

func (n notification) withKey(key string) notification { n.Key = key; return n }

func (n notification) pulled() notification { n.Operation = event.OpPull; return n }

// notify sends a notification and returns the answer as JSON.
func (r *rig) notify(n notification) string {
	r.t.Helper()
	out, err := r.Notify(r.t.Context(), inbound.Notification(n))
	if err != nil {
		r.t.Fatal(err)
	}
	return asJSON(r.t, out)
}

// notifyCanceled is notify by a caller that does not wait.
func (r *rig) notifyCanceled(n notification) string {
	r.t.Helper()
	gone, cancel := context.WithCancel(r.t.Context())
	cancel()
	out, err := r.Notify(gone, inbound.Notification(n))
	if err != nil {
		r.t.Fatal(err)
	}
	return asJSON(r.t, out)
}

func asJSON(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (r *rig) counts(name string) map[counts.Class]int64 {
	r.t.Helper()
	totals, _, _, err := r.counter.Repository(r.t.Context(), name)
	if err != nil {
		r.t.Fatal(err)
	}
	return totals.Counts
}

func (r *rig) wantCounts(name string, want map[counts.Class]int64) {
	r.t.Helper()
	if got := r.counts(name); len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
		r.t.Errorf("%s has %v, want %v", name, got, want)
	}
}

// recordsOf counts the layer records of a manifest by the owner in them.
func (r *rig) recordsOf(digest string) map[string]int {
	r.t.Helper()
	owners := map[string]int{}
	for _, rec := range r.list(lexicon.NSIDLayer) {
		user := rec["userDid"].(string)
		if rec["manifest"] == lexicon.ManifestURI(user, digest) {
			owners[user]++
		}
	}
	return owners
}

func (r *rig) events() uint64 { return r.journal.Status(journal.Pushes).Last }

// A push of another owner's image has records of that owner, is counted under the owner's
// name, and is not announced.
func TestNotifyOtherOwner(t *testing.T) {
	t.Parallel()
	r := newRig(t, &announce.Config{})
	p := image("a", 2).as("oss/app", "v1")
	r.push(p)
	r.drain()
	done := `{"success":true,"operation":"push","statsUpdated":true,"layersCreated":2,"postCreated":false}`
	for _, owner := range []string{alice, bob} {
		if got := r.notify(notificationOf(p, owner)); got != done {
			t.Errorf("%s: %s", owner, got)
		}
		r.wantCounts(owner+"/oss/app", map[counts.Class]int64{counts.Push: 1})
	}
	r.wantCounts("oss/app", map[counts.Class]int64{counts.Push: 1})
	if got, want := r.recordsOf(p.Digest), (map[string]int{owner: 2, alice: 2, bob: 2}); !reflect.DeepEqual(got, want) {
		t.Errorf("records of %v, want %v", got, want)
	}
	if posts := r.posts(); len(posts) != 1 {
		t.Errorf("%d posts", len(posts))
	}
	// Pushed again under another tag, it is a push and a retag, and has no new records.
	p.Tag = "v2"
	if got := r.notify(notificationOf(p, alice)); got != `{"success":true,"operation":"push","statsUpdated":true,"layersCreated":0,"postCreated":false}` {
		t.Errorf("again: %s", got)
	}
	r.wantCounts(alice+"/oss/app", map[counts.Class]int64{counts.Push: 2, counts.Retag: 1})
	// Whether it is public is decided by that name.
	s := image("s", 1).as("secret/app", "v1")
	for owner, layers := range map[string]int{alice: 1, bob: 0} {
		want := fmt.Sprintf(`{"success":true,"operation":"push","statsUpdated":true,"layersCreated":%d,"postCreated":false}`, layers)
		if got := r.notify(notificationOf(s, owner)); got != want {
			t.Errorf("%s: %s", owner, got)
		}
	}
	r.drain()
	if got, want := r.recordsOf(s.Digest), (map[string]int{alice: 1}); !reflect.DeepEqual(got, want) {
		t.Errorf("records of %v, want %v", got, want)
	}
	var result pushrow.Announce
	if ok, err := pushrow.Get(r.state, r.events(), pushrow.AnnouncePart, &result); !ok || err != nil || result.Reason == "" {
		t.Errorf("no reason why it is not announced: %+v %v %v", result, ok, err)
	}
	pushes, err := r.Pushes(100, false)
	pushes = slices.DeleteFunc(pushes, func(p stats.Push) bool { return p.Repository != alice+"/oss/app" })
	if err != nil || len(pushes) != 2 || pushes[0].State != stateDone {
		t.Errorf("the API shows %+v, %v", pushes, err)
	}
}

// A push of the registry's own owner is one of the repository itself.
func TestNotifyOwnOwner(t *testing.T) {
	t.Parallel()
	r := newRig(t, &announce.Config{})
	r.notify(notificationOf(image("a", 2).as("oss/app", "v1"), owner))
	posts := r.posts()
	if len(posts) != 1 {
		t.Fatalf("%d posts", len(posts))
	}
	got := r.notify(notificationOf(image("b", 1).as("oss/app", "v2"), owner))
	var out lexicon.NotifyManifestOutput
	if err := json.Unmarshal([]byte(got), &out); err != nil || out.PostURI == "" || !*out.PostCreated || *out.LayersCreated != 1 || !out.StatsUpdated {
		t.Errorf("got %s, %v", got, err)
	}
	r.wantCounts("oss/app", map[counts.Class]int64{counts.Push: 2})
	if got := r.notify(notificationOf(image("c", 2).as("secret/app", "v1"), owner)); got != `{"success":true,"operation":"push","statsUpdated":true,"layersCreated":0,"postCreated":false}` {
		t.Errorf("not public: %s", got)
	}
}

// The answer leaves out what is not known when the caller stops waiting.
func TestNotifyPartialAnswer(t *testing.T) {
	t.Parallel()
	r := newRig(t, &announce.Config{Collect: time.Hour, MaxAge: 2 * time.Hour})
	n := notificationOf(image("a", 2).as("oss/app", "v1"), owner)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	answered := make(chan lexicon.NotifyManifestOutput)
	go func() {
		out, err := r.Notify(ctx, inbound.Notification(n))
		if err != nil {
			t.Error(err)
		}
		answered <- out
	}()
	r.until("its layers are recorded and it is counted", func() bool {
		out, _, err := r.result(1)
		return err == nil && out.LayersCreated != nil && out.StatsUpdated
	})
	cancel()
	if got := asJSON(t, <-answered); got != `{"success":true,"operation":"push","statsUpdated":true,"layersCreated":2}` {
		t.Errorf("got %s", got)
	}
	// If too many answers are waiting, further ones are sent at once.
	for range maxAnswers {
		r.answerSlots <- struct{}{}
	}
	r.full.Store(true)
	if got := r.notify(notificationOf(image("b", 2).as("oss/app", "v1"), alice)); got != `{"success":true,"operation":"push","statsUpdated":false,"postCreated":false}` {
		t.Errorf("with %d waiting: %s", maxAnswers, got)
	}
	r.full.Store(false)
}

func TestNotifyPulls(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.stop()
	r.silent = true
	r.open(nil)
	p := image("a", 2).as("oss/app", "v1")
	child := notificationOf(p, alice)
	index := child
	index.Token, index.ManifestDigest = "index", "sha256:index"
	index.Manifest = lexicon.ManifestInfo{MediaType: "application/vnd.oci.image.index.v1+json", Manifests: []lexicon.Descriptor{{Digest: p.Digest}}}
	signature := notificationOf(p, alice)
	signature.Manifest.ArtifactType = "application/vnd.dev.cosign.artifact.sig.v1+json"
	byDigest := notificationOf(p, alice)
	byDigest.Tag = ""
	for _, n := range []notification{child, signature, index, byDigest} {
		if got := r.notify(n.pulled()); got != `{"success":true,"operation":"pull","statsUpdated":true}` {
			t.Errorf("got %s", got)
		}
	}
	r.wantCounts(alice+"/oss/app", map[counts.Class]int64{counts.Pull: 2, counts.Artifact: 1, counts.Child: 1})
	// They are in the push stream, since their sender waits for durability.
	if n := r.events(); n != 4 {
		t.Errorf("%d events", n)
	}
}

// A notification with a key is recorded once: also before it is counted, in the next
// process, and after the rows of the push were deleted.
func TestNotifyOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, &announce.Config{})
	r.full.Store(true)
	p := image("a", 2).as("oss/app", "v1")
	first := notificationOf(p, alice).withKey("1")
	r.notifyCanceled(first)
	again := func() notification { return notificationOf(p, alice).withKey("1") }
	refused := func(when string) {
		t.Helper()
		other := again()
		other.Tag = "v2"
		if _, err := r.Notify(t.Context(), inbound.Notification(other)); !errors.Is(err, inbound.ErrKeyReused) {
			t.Errorf("%s: another body: %v", when, err)
		}
		for _, n := range []notification{first, first.withKey(""), first.withKey("2")} {
			if _, err := r.Notify(t.Context(), inbound.Notification(n)); !errors.Is(err, inbound.ErrTokenUsed) {
				t.Errorf("%s: the same token: %v", when, err)
			}
		}
		if n := r.events(); n != 1 {
			t.Fatalf("%s: %d events", when, n)
		}
	}
	r.notifyCanceled(again())
	refused("before it is counted")
	r.reopen(&announce.Config{})
	r.notifyCanceled(again())
	refused("in the next process")
	r.full.Store(false)
	want := `{"success":true,"operation":"push","statsUpdated":true,"layersCreated":2,"postCreated":false}`
	for i := range 3 {
		if got := r.notify(again()); got != want {
			t.Errorf("%d times counted: %s", i, got)
		}
		refused("when it is counted")
		r.reopen(&announce.Config{})
	}
	var b state.Batch
	b.DeleteRange(state.Prefix("p/"))
	if err := r.state.Commit(&b, state.Sync); err != nil {
		t.Fatal(err)
	}
	if got := r.notify(again()); got != want {
		t.Errorf("without the rows: %s", got)
	}
	r.wantCounts(alice+"/oss/app", map[counts.Class]int64{counts.Push: 1})

	// Keys of different issuers are different, and pulls have keys as well.
	other := again()
	other.Issuer = alice
	r.notify(other)
	r.notify(notificationOf(p, alice).withKey("pull").pulled())
	r.notify(notificationOf(p, alice).withKey("pull").pulled())
	r.wantCounts(alice+"/oss/app", map[counts.Class]int64{counts.Push: 2, counts.Pull: 1})
}

func TestNotifyOnceConcurrently(t *testing.T) {
	t.Parallel()
	r := newRig(t, &announce.Config{})
	p := image("a", 2).as("oss/app", "v1")
	answers := make([]string, 50)
	var group sync.WaitGroup
	for i := range answers {
		n := notificationOf(p, alice).withKey("1")
		group.Go(func() { answers[i] = r.notify(n) })
	}
	group.Wait()
	for _, got := range answers {
		if want := answers[0]; got != want {
			t.Errorf("got %s and %s", got, want)
		}
	}
	if n := r.events(); n != 1 {
		t.Errorf("%d events", n)
	}
}

// If the journal fails, the notification may be repeated, with the same token. If its first
// event became durable nevertheless, one of the two is counted.
func TestNotifyAfterFailure(t *testing.T) {
	t.Parallel()
	r := newRig(t, &announce.Config{})
	p := image("a", 2).as("oss/app", "v1")
	first := notificationOf(p, alice).withKey("1")
	for _, n := range []notification{first, notificationOf(p, alice).withKey("1")} {
		e, err := r.notifiedEvent((*inbound.Notification)(&n))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.appendNotified(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	r.drain()
	r.wantCounts(alice+"/oss/app", map[counts.Class]int64{counts.Push: 1})
	if n := len(r.records()); n != 2 {
		t.Errorf("%d records", n)
	}
	if got := r.notify(notificationOf(p, alice).withKey("1")); got != `{"success":true,"operation":"push","statsUpdated":true,"layersCreated":2,"postCreated":false}` {
		t.Errorf("got %s", got)
	}
	if n := r.events(); n != 2 {
		t.Errorf("%d events", n)
	}

	r.full.Store(true)
	r.notifyCanceled(notificationOf(p, bob)) // the journal is read once, before it fails
	r.journal.Close()
	n := notificationOf(p, alice).withKey("2")
	for range 2 {
		if _, err := r.Notify(t.Context(), inbound.Notification(n)); !errors.Is(err, journal.ErrClosed) {
			t.Errorf("got %v", err)
		}
	}
}
