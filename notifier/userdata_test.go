package notifier

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/deadletters"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/forgotten"
	"github.com/tidings-dev/tidings/notifier/inbound"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/owners"
	"github.com/tidings-dev/tidings/notifier/quota"
	"github.com/tidings-dev/tidings/notifier/recent"
	"github.com/tidings-dev/tidings/notifier/records"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/usage"
)

// An account has data while one of its public images has records.
func TestHasData(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	a := withLayers("a", map[string]int64{"a": 1})
	want := func(when string, accounts map[string]bool) {
		t.Helper()
		for did, want := range accounts {
			if got, err := r.UserData().HasData(did); err != nil || got != want {
				t.Errorf("%s: %s has data: %v, %v", when, did, got, err)
			}
		}
	}
	want("before", map[string]bool{owner: false, alice: false})
	r.push(withLayers("b", map[string]int64{"b": 7}).as("secret/app", "").listed())
	r.drain()
	want("after a private push", map[string]bool{owner: false})
	r.notify(notificationOf(a, alice))
	r.drain()
	want("after a notification", map[string]bool{owner: false, alice: true, "did:plc:alic": false, "": false})
}

// requestOf is the request of an account to have its data deleted, with a new token.
func requestOf(did string) inbound.Notification {
	n := inbound.Notification(notificationOf(image("a", 1), did))
	return inbound.Notification{Issuer: did, Token: n.Token}
}

// forget has the data of an account deleted, and returns the answer as JSON.
func (r *rig) forget(did string) string {
	r.t.Helper()
	out, err := r.UserData().Delete(r.t.Context(), requestOf(did))
	if err != nil {
		r.t.Fatal(err)
	}
	return asJSON(r.t, out)
}

// owned counts the layer records of each owner.
func (r *rig) owned() map[string]int {
	r.t.Helper()
	n := map[string]int{}
	for _, record := range r.list(lexicon.NSIDLayer) {
		n[record["userDid"].(string)]++
	}
	return n
}

func (r *rig) wantOwned(when string, want map[string]int) {
	r.t.Helper()
	r.drain()
	if got := r.owned(); !maps.Equal(got, want) {
		r.t.Errorf("%s: records of %v, want %v", when, got, want)
	}
}

// The records of an owner are deleted, those of others stay, and a later push is recorded as
// usual. What was pushed before is deleted also if it is pending, and stays deleted if it is
// found in storage.
func TestDeleteData(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	a, b, big := image("a", 2), image("b", 3), image("big", 250)
	r.push(a.as("oss/app", "v1"))
	r.push(a.as("oss/app", "v2"))
	r.push(big.as("oss/big", "v1"))
	r.notify(notificationOf(a, alice))
	r.notify(notificationOf(b, alice))
	r.wantOwned("before", map[string]int{owner: 252, alice: 5})

	if got, want := r.forget(alice), `{"success":true,"crewDeleted":false,"layersDeleted":5,"statsDeleted":0}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	r.wantOwned("after alice's call", map[string]int{owner: 252})
	r.wantUsage("after alice's call", alice, 0, 0)
	r.wantCounts(alice+"/oss/app", map[counts.Class]int64{counts.Push: 2})
	if got, want := r.forget(alice), `{"success":true,"crewDeleted":false,"layersDeleted":0,"statsDeleted":0}`; got != want {
		t.Errorf("again: got %s, want %s", got, want)
	}
	r.notify(notificationOf(b, alice))
	r.wantOwned("after a push of alice", map[string]int{owner: 252, alice: 3})

	r.account.down.Store(true)
	r.push(b.as("oss/app", "v3")) // pending
	if got, want := r.forget(owner), `{"success":true,"crewDeleted":false,"layersDeleted":252,"statsDeleted":0}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	r.push(b.as("oss/app", "v4"))
	r.account.down.Store(false)
	r.wantOwned("after the call of the registry's owner", map[string]int{owner: 3, alice: 3})
	r.consistent()

	if err := r.stores.Request(); err != nil {
		t.Fatal(err)
	}
	r.reopen(nil)
	r.reconciled()
	r.wantOwned("after a reconciliation", map[string]int{owner: 3, alice: 3})
	known := forgotten.New(r.state)
	for _, pushed := range []bool{false, true} {
		if pushed {
			r.push(a.as("oss/app", "v2"))
			r.drain()
		}
		if marked, err := known.Marked(owner, a.Digest); err != nil || marked == pushed {
			t.Errorf("pushed: %v, marked: %v, %v", pushed, marked, err)
		}
	}
	r.wantOwned("after a push of what was deleted", map[string]int{owner: 5, alice: 3})
	if err := r.stores.Request(); err != nil {
		t.Fatal(err)
	}
	r.reopen(nil)
	r.reconciled()
	r.wantOwned("after another reconciliation", map[string]int{owner: 5, alice: 3})
	r.consistent()

	r.stopSinks()
	r.notifyCanceled(notificationOf(image("earlier", 2), bob))
	r.forget(bob)
	r.notifyCanceled(notificationOf(image("later", 1), bob))
	r.reopen(nil)
	r.wantOwned("all of it handled at once", map[string]int{owner: 5, alice: 3, bob: 1})
	if letters := r.letters(); len(letters) > 0 {
		t.Errorf("given up: %+v", letters)
	}
}

// A token deletes once, also across a crash.
func TestDeleteDataOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	request := requestOf(alice)
	if _, err := r.UserData().Delete(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := r.UserData().Delete(t.Context(), request); !errors.Is(err, inbound.ErrTokenUsed) {
			t.Errorf("the same token: %v", err)
		}
		r.reopenCopy(nil)
	}
	if n := r.events(); n != 1 {
		t.Errorf("%d events", n)
	}
}

// recordsStep lets the records sink do what it can do now.
func (r *rig) recordsStep() error {
	ctx := context.Background()
	if err := r.stores.Verify(ctx); err != nil {
		return err
	}
	for {
		entries, err := r.journal.Read(journal.Pushes, r.journal.Cursor(journal.Pushes, records.Name), handleEvents, handleBytes)
		if err != nil || len(entries) == 0 {
			return err
		}
		var events []event.Sequenced
		for _, entry := range entries {
			e, err := recent.Decode(entry.Seq, entry.Payload)
			if err != nil {
				return err
			}
			events = append(events, e)
		}
		done, _, err := r.sinks[0].Handle(ctx, events)
		if done > 0 {
			move := func() error { return r.journal.SetCursor(journal.Pushes, records.Name, events[done-1].Seq) }
			if err := r.crash.point(move); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
	}
}

// Wherever the process is killed while it deletes, exactly the records of the owner's
// earlier pushes are deleted in the end.
func TestDeleteDataKilled(t *testing.T) {
	t.Parallel()
	points := 0
	for killed := true; killed; {
		points++
		for _, applied := range []bool{false, true} {
			killed = testDeleteDataKilled(t, crasher{left: points, applied: applied})
		}
	}
	if points < 7 { // put a batch, write it, clear it: for two batches
		t.Errorf("the process was killed at %d points", points-1)
	}
}

func testDeleteDataKilled(t *testing.T, crash crasher) (killed bool) {
	when := fmt.Sprintf("killed at point %d, applied %v", crash.left, crash.applied)
	r, _ := newManualRig(t, nil)
	step := func() {
		t.Helper()
		if err := r.recordsStep(); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		r.notifyCanceled(notificationOf(image(fmt.Sprint("image ", i), 90), alice))
		r.notifyCanceled(notificationOf(image(fmt.Sprint("image ", i), 1), bob))
	}
	step()
	r.notifyCanceled(notificationOf(image("pending", 2), alice))
	if got := r.forget(alice); !strings.Contains(got, `"layersDeleted":270`) {
		t.Errorf("the answer is %s", got)
	}
	r.notifyCanceled(notificationOf(image("image 0", 90), alice))
	r.notifyCanceled(notificationOf(image("later", 2), alice))
	r.stop()
	r.crash = &crasher{}
	r.open(nil)
	*r.crash = crash
	killed = r.recordsStep() != nil
	if killed != r.crash.dead {
		t.Fatalf("%s: the sink failed", when)
	}
	r.reopenCopy(nil)
	step()
	if got, want := r.owned(), (map[string]int{alice: 92, bob: 3}); !maps.Equal(got, want) {
		t.Errorf("%s: records of %v, want %v", when, got, want)
	}
	r.consistent()
	r.stop()
	return killed
}

// The deletion of records that the account refuses is given up, and a retry deletes them,
// but not those of later pushes.
func TestDeleteDataRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.notify(notificationOf(image("a", 2), alice))
	r.notify(notificationOf(image("b", 3), alice))
	r.refuse(lexicon.NSIDLayer)
	r.forget(alice)
	r.wantOwned("refused", map[string]int{alice: 5})
	letters := r.letters()
	if len(letters) != 1 || letters[0].Sink != records.Name {
		t.Fatalf("letters %+v", letters)
	}
	r.refuse("")
	r.notify(notificationOf(image("c", 4), alice))
	if err := r.RetryLetter(t.Context(), deadletters.Box{Sink: records.Name, Stream: journal.Pushes}, letters[0].First); err != nil {
		t.Fatal(err)
	}
	r.wantOwned("retried", map[string]int{alice: 4})
	if letters := r.letters(); len(letters) > 0 {
		t.Errorf("letters %+v", letters)
	}
	r.consistent()
}

// A push that was parked, or given up, before its owner had its data deleted gets no records
// when it is repeated; one that was parked later does.
func TestDeleteDataOfRepeatedPushes(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.refuse(lexicon.NSIDLayer)
	r.notifyCanceled(notificationOf(image("refused", 1), alice))
	r.drain()
	r.refuse("")
	resolver := newFakeHandles()
	r.owners, r.handles = []owners.Rule{{Repositories: []string{"team/*"}, Owner: owners.Parse("alice.example.com")}}, resolver
	r.reopen(nil)
	early, late := image("early", 2), image("late", 3)
	r.push(early.as("team/app", "v1"))
	r.drain()
	r.forget(alice)
	r.push(late.as("team/app", "v2"))
	r.drain()
	r.wantOwned("while the handle is not resolved", map[string]int{})
	resolver.set("alice.example.com", alice)
	r.until("the pushes are repeated", func() bool { return r.parked.Len() == 0 })
	r.wantOwned("after it is resolved", map[string]int{alice: 3})
	letters := r.letters()
	if len(letters) != 1 {
		t.Fatalf("letters %+v", letters)
	}
	if err := r.RetryLetter(t.Context(), deadletters.Box{Sink: records.Name, Stream: journal.Pushes}, letters[0].First); err != nil {
		t.Fatal(err)
	}
	r.wantOwned("after a retry", map[string]int{alice: 3})
}

// A push of an owner that has just deleted its data waits until the quota is free.
func TestDeleteDataFreesQuota(t *testing.T) {
	t.Parallel()
	r := newLimitedRig(t)
	r.notify(notificationOf(withLayers("a", map[string]int64{"a": 900}), alice))
	reserve := func() error {
		reserved, err := r.quota.Reserve(t.Context(), alice, []usage.Layer{{Digest: digest.FromString("b").String(), Size: 901}})
		reserved.Release()
		return err
	}
	var exceeded *quota.ExceededError
	if err := reserve(); !errors.As(err, &exceeded) {
		t.Errorf("before the deletion: %v", err)
	}
	r.forget(alice)
	if err := reserve(); err != nil {
		t.Errorf("after the deletion: %v", err)
	}
	r.wantUsage("after the deletion", alice, 0, 0)
}

// keys returns the record keys of posts by their first line.
func (r *rig) keys(line string) (keys []string) {
	r.t.Helper()
	for rkey, record := range r.stored(lexicon.NSIDPost) {
		if fields, err := lexicon.Unmarshal(record.Value); err == nil && strings.HasPrefix(fields["text"].(string), line+"\n") {
			keys = append(keys, rkey)
		}
	}
	return keys
}

// Posts of the owner's images are deleted with on_delete, also those that wait, and a later
// push is announced like that of a new image.
func TestDeleteDataPosts(t *testing.T) {
	t.Parallel()
	for _, retract := range []bool{false, true} {
		t.Run(fmt.Sprint("retract ", retract), func(t *testing.T) {
			t.Parallel()
			cfg := policy()
			cfg.Retract = retract
			r, m := newManualRig(t, cfg)
			r.owners = []owners.Rule{{Repositories: []string{"team/*"}, Owner: owners.Parse(alice)}}
			r.reopen(cfg)
			a, b, c := image("a", 1), image("b", 1), image("c", 1)
			settle := func() {
				m.Pass(time.Minute)
				r.mustStep()
			}
			r.push(a.as("team/app", "v1"))
			r.push(a.as("oss/app", "v1"))
			settle()
			r.push(b.as("team/app", "v2")) // waits for the end of the cooldown
			settle()
			r.push(c.as("team/other", "v1")) // its window is open
			before := r.keys("team/app:v1 was pushed")
			r.forget(alice)
			r.push(a.as("team/app", "v1"))
			settle()
			m.Pass(time.Hour)
			r.reopenCopy(cfg)
			r.mustStep()
			want := []string{"oss/app:v1 was pushed", "team/app:v1 was pushed"}
			got := r.texts()
			if slices.Sort(got); !slices.Equal(got, want) {
				t.Errorf("posts %q, want %q", got, want)
			}
			if after := r.keys("team/app:v1 was pushed"); slices.Equal(after, before) == retract || len(after) != 1 {
				t.Errorf("posts of the image have the keys %q, then %q", before, after)
			}
			for _, prefix := range []string{state.Retractions, string(state.AnnounceForget)} {
				if err := r.state.Scan(state.Prefix(prefix), func(key, _ []byte) error { return fmt.Errorf("%q is left", key) }); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
