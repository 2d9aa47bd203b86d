package notifier

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/internal/race"
	"github.com/tidings-dev/tidings/notifier/delivery"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/ledger"
	"github.com/tidings-dev/tidings/notifier/pushrow"
	"github.com/tidings-dev/tidings/notifier/reconcile"
	"github.com/tidings-dev/tidings/notifier/records"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/stored"
)

func TestRecords(t *testing.T) {
	t.Parallel()
	a, b := image("a", 3), image("b", 2)
	huge := image("huge", 450)
	secret := a.as("secret/app", "v1")
	for name, test := range map[string]struct {
		do   func(r *rig)
		want int
	}{
		"one record a layer":                 {func(r *rig) { r.push(a) }, 3},
		"pushed again":                       {func(r *rig) { r.push(a); r.drain(); r.push(a) }, 3},
		"a second tag":                       {func(r *rig) { r.push(a.as("oss/app", "v1")); r.push(a.as("oss/app", "v2")) }, 3},
		"in a second repository":             {func(r *rig) { r.push(a); r.push(a.as("oss/other", "v1")) }, 3},
		"deleted":                            {func(r *rig) { r.push(a); r.push(b); r.drain(); r.delete(a) }, 2},
		"deleted before it was written":      {func(r *rig) { r.push(a); r.delete(a) }, 0},
		"deleted in one of two repositories": {func(r *rig) { r.push(a); r.push(a.as("oss/other", "")); r.delete(a) }, 3},
		"deleted and pushed again":           {func(r *rig) { r.push(a); r.delete(a); r.push(a) }, 3},
		"more layers than a commit holds":    {func(r *rig) { r.push(huge); r.push(a) }, 453},
		"more, and deleted":                  {func(r *rig) { r.push(huge); r.drain(); r.delete(huge) }, 0},
		"not public":                         {func(r *rig) { r.push(secret) }, 0},
		"not public, then public":            {func(r *rig) { r.push(secret); r.push(a) }, 3},
		"after a restart":                    {func(r *rig) { r.push(a); r.drain(); r.reopen(nil); r.push(a); r.push(b) }, 5},
	} {
		for _, f := range [][]fault{nil, {lostRequest}, {lostAnswer}, {lostAnswer, lostRequest, lostAnswer}} {
			t.Run(fmt.Sprint(name, f), func(t *testing.T) {
				t.Parallel()
				r := newRig(t, nil)
				r.account.fail(f...)
				test.do(r)
				r.drain()
				found := r.records()
				if len(found) != test.want {
					t.Errorf("got %d records, want %d", len(found), test.want)
				}
				for record, times := range found {
					if times != 1 {
						t.Errorf("%s exists %d times", record, times)
					}
				}
				letters := r.letters()
				if len(letters) > 0 {
					t.Errorf("given up: %+v", letters)
				}
			})
		}
	}
}

// A record of another client under our key is never overwritten: the event is given up, and
// the following events are processed.
func TestRecordsConflict(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		layers, at int
		again      bool // a second push, in the same batch
		letters    int
	}{
		"one record":                     {1, 0, false, 1},
		"pushed twice in one batch":      {1, 0, true, 2},
		"the last of two commits":        {450, 449, false, 1},
		"in the second of three commits": {450, 230, true, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			r.full.Store(true)
			a, b := image("a", test.layers), image("b", 1)
			r.push(a)
			if test.again {
				r.push(a.as("oss/other", ""))
			}
			r.push(b)
			r.apply(foreignRecord(t, r.event(1), test.at))
			r.full.Store(false)
			r.drain()
			if found := r.records(); len(found) != 2 {
				t.Errorf("%d records, want the foreign one and b's", len(found))
			}
			letters := r.letters()
			if len(letters) != test.letters || letters[0].Sink != "records" || len(letters[0].Event) == 0 {
				t.Errorf("dead letters: %+v, want %d", letters, test.letters)
			}
			if _, found, err := r.ledger.Get(owner, a.Digest); found || err != nil {
				t.Errorf("the ledger has an entry of what was given up: %v", err)
			}
			r.consistent(reconcile.Record, reconcile.Missing)
		})
	}
}

// foreignRecord is a record of another client under the key of an event's i-th record.
func foreignRecord(t *testing.T, e *event.Event, i int) repo.Write {
	t.Helper()
	record, err := lexicon.Encode(lexicon.Layer{Digest: "sha256:00", MediaType: "x", Manifest: "at://did:web:x/io.atcr.manifest/00", UserDID: owner, CreatedAt: "2026-01-01T00:00:00Z"})
	if err != nil {
		t.Fatal(err)
	}
	return repo.Write{Action: repo.Create, Collection: lexicon.NSIDLayer, RKey: event.TID(e.TID+1+int64(i), e.ClockID), Record: record}
}

// A delete of many records succeeds if some of them have been deleted by hand.
func TestRecordsDeletedByHand(t *testing.T) {
	t.Parallel()
	for _, gone := range [][]int{{0}, {1}, {149}, {0, 1, 2, 77, 149}} {
		for _, f := range [][]fault{nil, {lostRequest}, {lostAnswer}} {
			t.Run(fmt.Sprint(gone, f), func(t *testing.T) {
				t.Parallel()
				r := newRig(t, nil)
				a, b := image("a", 150), image("b", 40)
				r.push(a)
				r.push(b)
				r.drain()
				e := r.event(1)
				for _, i := range gone {
					r.apply(repo.Write{Action: repo.Delete, Collection: lexicon.NSIDLayer, RKey: event.TID(e.TID+1+int64(i), e.ClockID)})
				}
				r.account.fail(f...)
				r.full.Store(true)
				r.delete(b)
				r.delete(a)
				r.full.Store(false)
				r.drain()
				if found := r.records(); len(found) != 0 {
					t.Errorf("%d records are left", len(found))
				}
				r.consistent()
			})
		}
	}
}

// What storage has decides, in whatever order a push and a delete of one digest reach the
// journal.
func TestRecordsConcurrentPushAndDelete(t *testing.T) {
	t.Parallel()
	a := image("a", 2)
	secret := a.as("secret/app", "v1")
	for name, test := range map[string]struct {
		do   func(r *rig)
		want int
	}{
		"deleted before it is stored": {func(r *rig) {
			in, del := r.intend(a), r.intendDelete(a)
			r.storage.remove(a)
			r.storage.put(a)
			r.complete(in)
			r.complete(del)
		}, 2},
		"deleted after it is stored": {func(r *rig) {
			in, del := r.intend(a), r.intendDelete(a)
			r.storage.put(a)
			r.storage.remove(a)
			r.complete(del)
			r.complete(in)
		}, 0},
		"pushed during its delete": {func(r *rig) {
			r.push(a)
			del := r.intendDelete(a)
			r.storage.remove(a)
			r.push(a)
			r.complete(del)
		}, 2},
		"a private copy is deleted during a public push": {func(r *rig) {
			r.push(secret)
			in := r.intend(a)
			r.storage.put(a)
			r.delete(secret)
			r.complete(in)
		}, 2},
		"a public one is deleted, a private copy stays": {func(r *rig) {
			r.push(secret)
			r.push(a)
			r.delete(a)
		}, 0},
	} {
		for _, between := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " ", between), func(t *testing.T) {
				t.Parallel()
				r := newRig(t, nil)
				r.full.Store(!between) // true: all events are in one batch
				test.do(r)
				r.full.Store(false)
				r.drain()
				if got := len(r.records()); got != test.want {
					t.Errorf("%d records, want %d", got, test.want)
				}
				r.consistent()
			})
		}
	}
}

// After the owner was changed, records of images that are pushed again move to the new
// owner, and a delete finds those of the old one.
func TestRecordsOwnerChanged(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	a, b := image("a", 2), image("b", 3)
	r.push(a)
	r.push(b)
	r.drain()
	r.owner = alice
	r.reopen(nil)
	r.push(a)
	r.delete(b)
	r.drain()
	if got, want := r.recordsOf(a.Digest), map[string]int{alice: 2}; !reflect.DeepEqual(got, want) {
		t.Errorf("records of %v, want %v", got, want)
	}
	if got := r.recordsOf(b.Digest); len(got) != 0 {
		t.Errorf("records of %v after the delete", got)
	}
	r.consistent()
}

// A batch in the outbox is checked again before it is sent.
func TestRecordsRecheck(t *testing.T) {
	t.Parallel()
	a := image("a", 3)
	for name, test := range map[string]struct {
		push   Push
		change func(r *rig)
		want   int
	}{
		"unchanged":               {a, func(*rig) {}, 3},
		"not public any more":     {a, func(r *rig) { r.public = func(string) bool { return false } }, 0},
		"deleted":                 {a, func(r *rig) { r.storage.remove(a) }, 0},
		"deleted, two commits":    {image("huge", 450), func(r *rig) { r.storage.remove(image("huge", 450)) }, 0},
		"not public, two commits": {image("huge", 450), func(r *rig) { r.public = func(string) bool { return false } }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			commits := 1
			if test.push.Layers > delivery.MaxWrites {
				commits = 2 // the first one succeeds
			}
			r.account.failAfter(commits-1, 1000)
			r.push(test.push)
			r.until("it is in the outbox", func() bool {
				var b records.Batch
				ok, err := delivery.NewOutbox(r.state, state.RecordsOutbox, nil).Load(&b)
				return ok && err == nil && len(r.records()) == (commits-1)*delivery.MaxWrites
			})
			r.stop()
			test.change(r)
			r.open(nil)
			r.drain()
			if got := len(r.records()); got != test.want {
				t.Errorf("%d records, want %d", got, test.want)
			}
			if _, found, err := r.ledger.Get(owner, test.push.Digest); found != (test.want > 0) || err != nil {
				t.Errorf("the ledger has an entry: %v, %v", found, err)
			}
			var result pushrow.Records
			if _, err := pushrow.Get(r.state, 1, pushrow.RecordsPart, &result); err != nil || (result.Reason == "") != (test.want > 0) {
				t.Errorf("result %+v, %v", result, err)
			}
		})
	}
}

// A push without enough reserved keys is given up with the reason, and other pushes are not
// affected.
func TestRecordsWithoutKeys(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	bad := image("bad", 1)
	bad.Layers = 0 // no keys are reserved
	r.push(image("a", 1))
	r.push(bad)
	r.push(image("b", 1))
	r.drain()
	if found := r.records(); len(found) != 2 {
		t.Errorf("%d records, want 2", len(found))
	}
	letters := r.letters()
	if len(letters) != 1 || letters[0].First != 2 || !strings.Contains(letters[0].Reason, "keys for 0") || len(letters[0].Event) == 0 {
		t.Errorf("dead letters: %+v", letters)
	}
	r.reopen(nil)
	pushes, err := r.Pushes(10, true)
	if err != nil || len(pushes) != 3 || pushes[1].State != stateFailed || !strings.Contains(pushes[1].Reason, "keys for 0") || pushes[0].State != stateDone {
		t.Errorf("the API shows %+v, %v", pushes, err)
	}
}

// The number of rows is limited.
func TestPushesPruned(t *testing.T) {
	race.Skip(t, "nothing in it runs concurrently")
	t.Parallel()
	r := newRig(t, nil)
	batch := &state.Batch{}
	var rows []pushrow.Push
	for seq := uint64(1); seq <= pushrow.Kept+2*pushrow.PruneEvery; seq++ {
		rows = append(rows, pushrow.Push{Seq: seq, Repository: "oss/app"})
	}
	for chunk := range slices.Chunk(rows, 700) {
		if err := pushrow.PutAll(batch, chunk); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.state.Commit(batch, state.Sync); err != nil {
		t.Fatal(err)
	}
	pushes, err := r.Pushes(2*pushrow.Kept, true)
	if err != nil {
		t.Fatal(err)
	}
	if len(pushes) < pushrow.Kept || len(pushes) > pushrow.Kept+pushrow.PruneEvery {
		t.Errorf("%d rows are kept, want %d or a few more", len(pushes), pushrow.Kept)
	}
}

// The result of a push whose batch was sent twice has the number of its records.
func TestRecordsResultAfterRetry(t *testing.T) {
	t.Parallel()
	for _, f := range [][]fault{nil, {lostRequest}, {lostAnswer}} {
		r := newRig(t, nil)
		r.account.fail(f...)
		r.push(image("a", 3))
		r.drain()
		pushes, err := r.Pushes(1, true)
		if err != nil {
			t.Fatal(err)
		}
		if len(pushes) != 1 || pushes[0].LayersRecorded == nil || *pushes[0].LayersRecorded != 3 {
			t.Errorf("after %v: %+v, want 3 layers recorded", f, pushes)
		}
	}
}

// An event of a newer program stays pending: no sink gives it up or skips it.
func TestNewerEvent(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	if _, err := r.journal.Append(t.Context(), journal.Pushes, 1, []byte(`{"v":99}`)); err != nil {
		t.Fatal(err)
	}
	r.push(image("a", 1))
	r.until("the sinks have tried", func() bool { return r.account.tried.Load() > 4 })
	letters := r.letters()
	if len(letters) > 0 || len(r.records()) > 0 || r.pushes() != 0 {
		t.Errorf("letters %+v, %d records, %d pushes; want none", letters, len(r.records()), r.pushes())
	}
}

// ledgerEntry is the ledger entry of a push.
func ledgerEntry(e *event.Event, records int) ledger.Entry {
	return ledger.Entry{First: e.TID, ClockID: e.ClockID, Records: records}
}

// A damaged manifest holds up no other event; while storage is not available, events are
// pending.
func TestRecordsStorageFails(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	a, b, c := image("a", 2), image("b", 3), image("c", 4)
	r.push(c)
	r.drain()
	r.storage.fail(true)
	r.push(a)
	r.push(b)
	r.delete(c)
	tried := r.account.tried.Load()
	r.until("the sink has tried", func() bool { return r.account.tried.Load() > tried+2*stored.MaxFailures })
	if got := len(r.records()); got != 4 {
		t.Errorf("%d records while storage is down, want 4", got)
	}
	r.storage.mu.Lock()
	r.storage.down, r.storage.damaged = false, a.Digest
	r.storage.mu.Unlock()
	r.drain()
	if got := len(r.records()); got != 5 {
		t.Errorf("%d records, want 5", got)
	}
}

// When public or owner are changed, records are written for the images in storage, and
// nothing is announced.
func TestRecordsOptionsChanged(t *testing.T) {
	t.Parallel()
	r := newRig(t, shortWindows())
	r.options = "first"
	r.reopen(shortWindows())
	a, secret := image("a", 2).as("oss/app", "v1"), image("secret", 3).as("secret/app", "v1")
	r.push(a)
	r.push(secret)
	r.drain()
	r.options, r.owner, r.public = "second", alice, func(string) bool { return true }
	r.reopen(shortWindows())
	r.reconciled()
	r.consistent()
	for digest, want := range map[string]map[string]int{a.Digest: {alice: 2}, secret.Digest: {alice: 3}} {
		if got := r.recordsOf(digest); !reflect.DeepEqual(got, want) {
			t.Errorf("records of %v, want %v", got, want)
		}
	}
	if got := len(r.posts()); got != 1 {
		t.Errorf("%d posts, want 1", got)
	}
	if got := r.pushes(); got != 1 {
		t.Errorf("%d pushes counted, want 1", got)
	}
}

// A pending event of an earlier owner does not undo the reconciliation when the owner is
// changed back.
func TestRecordsOptionsChangedBack(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	a := image("a", 2)
	r.options, r.owner = "first", alice
	r.reopen(nil)
	r.push(a)
	r.drain()
	r.stop()
	r.options, r.owner = "second", ""
	r.full.Store(true)
	r.open(nil)
	r.push(a) // pending with the account's DID as owner
	r.stop()
	r.options, r.owner = "third", alice
	r.full.Store(false)
	r.open(nil)
	r.reconciled()
	r.consistent()
	if got, want := r.recordsOf(a.Digest), (map[string]int{alice: 2}); !reflect.DeepEqual(got, want) {
		t.Errorf("records of %v, want %v", got, want)
	}
}

// Storage is asked once for each pending push, however many there are.
func TestOneLookupPerPush(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.stopSinks()
	const pushes = 300 // several commits
	for i := range pushes {
		r.push(image(fmt.Sprint(i), 5).as("oss/app", "edge"))
	}
	r.reopen(nil)
	r.drain()
	if got := len(r.records()); got != pushes*5 {
		t.Errorf("%d records, want %d", got, pushes*5)
	}
	if got := r.storage.lookups.Load(); got > pushes {
		t.Errorf("%d lookups in storage for %d pushes", got, pushes)
	}
}
