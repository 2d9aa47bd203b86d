package notifier

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/opencontainers/go-digest"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/stats"
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
		"one record a layer":               {func(r *rig) { r.push(a) }, 3},
		"pushed again":                     {func(r *rig) { r.push(a); r.drain(); r.push(a) }, 3},
		"a second tag":                     {func(r *rig) { r.push(a.as("oss/app", "v1")); r.push(a.as("oss/app", "v2")) }, 3},
		"the same manifest, another place": {func(r *rig) { r.push(a); r.push(a.as("oss/other", "v1")) }, 3},
		"deleted":                          {func(r *rig) { r.push(a); r.push(b); r.drain(); r.delete(a) }, 2},
		"deleted before it was written":    {func(r *rig) { r.push(a); r.delete(a) }, 0},
		"deleted in one of two places":     {func(r *rig) { r.push(a); r.push(a.as("oss/other", "")); r.delete(a) }, 3},
		"deleted and pushed again":         {func(r *rig) { r.push(a); r.delete(a); r.push(a) }, 3},
		"more layers than a call holds":    {func(r *rig) { r.push(huge); r.push(a) }, 453},
		"and deleted again":                {func(r *rig) { r.push(huge); r.drain(); r.delete(huge) }, 0},
		"not public":                       {func(r *rig) { r.push(secret) }, 0},
		"not public, then public":          {func(r *rig) { r.push(secret); r.push(a) }, 3},
		"after a restart":                  {func(r *rig) { r.push(a); r.drain(); r.reopen(nil); r.push(a); r.push(b) }, 5},
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
						t.Errorf("%s is there %d times", record, times)
					}
				}
				letters, err := r.DeadLetters.All()
				if err != nil {
					t.Fatal(err)
				}
				if len(letters) > 0 {
					t.Errorf("given up: %+v", letters)
				}
			})
		}
	}
}

// A record of somebody else under our key is never overwritten: the event is
// given up, and those after it go on.
func TestRecordsDifferentValue(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	a, b := image("a", 1), image("b", 1)
	in, err := r.Intend(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	record, err := lexicon.Encode(lexicon.Layer{Digest: "sha256:00", MediaType: "x", Manifest: "at://did:web:x/io.atcr.manifest/00", UserDID: owner, CreatedAt: "2026-01-01T00:00:00Z"})
	if err != nil {
		t.Fatal(err)
	}
	foreign := repo.Write{Action: repo.Create, Collection: lexicon.NSIDLayer, RKey: tid(in.event.TID+1, in.event.ClockID), Record: record}
	if _, err := r.repo.Apply(t.Context(), []repo.Write{foreign}, nil); err != nil {
		t.Fatal(err)
	}
	if err := in.Complete(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.push(b)
	r.drain()
	if found := r.records(); len(found) != 2 {
		t.Errorf("got %v, want the foreign record and b's", found)
	}
	letters, err := r.DeadLetters.All()
	if err != nil {
		t.Fatal(err)
	}
	if len(letters) != 1 || letters[0].Sink != "records" {
		t.Errorf("dead letters: %+v", letters)
	}
}

// A manifest that no record can be made of is given up, with the reason, and
// what was pushed before and after it is not.
func TestRecordsImpossible(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	bad := image("bad", 1)
	bad.Payload = bytes.Replace(bad.Payload, []byte("image.layer"), bytes.Repeat([]byte("x"), 300), 1)
	bad.Digest = digest.FromBytes(bad.Payload).String()
	r.push(image("a", 1))
	r.push(bad)
	r.push(image("b", 1))
	r.drain()
	if found := r.records(); len(found) != 2 {
		t.Errorf("%d records, want 2", len(found))
	}
	letters, err := r.DeadLetters.All()
	if err != nil {
		t.Fatal(err)
	}
	if len(letters) != 1 || letters[0].First != 2 || !strings.Contains(letters[0].Reason, "mediaType") || len(letters[0].Event) == 0 {
		t.Errorf("dead letters: %+v", letters)
	}
}

// The rows of pushes are bounded.
func TestPushesPruned(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	batch := r.State.NewBatch()
	var rows []row
	for seq := uint64(1); seq <= keptPushes+2*pruneEvery; seq++ {
		rows = append(rows, row{seq, &stats.Push{Repository: "oss/app"}})
	}
	for chunk := range slices.Chunk(rows, 700) {
		if err := putRows(batch, chunk); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.State.Commit(batch, pebble.Sync); err != nil {
		t.Fatal(err)
	}
	pushes, err := r.Pushes(2*keptPushes, func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	if len(pushes) < keptPushes || len(pushes) > keptPushes+pruneEvery {
		t.Errorf("%d rows are kept, want %d or a little more", len(pushes), keptPushes)
	}
}

// A push whose batch had to be sent again tells how many records it made, not
// that the second try found them made.
func TestRecordsResultAfterRetry(t *testing.T) {
	t.Parallel()
	for _, f := range [][]fault{nil, {lostRequest}, {lostAnswer}} {
		r := newRig(t, nil)
		r.account.fail(f...)
		r.push(image("a", 3))
		r.drain()
		pushes, err := r.Pushes(1, func(string) bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		if len(pushes) != 1 || pushes[0].LayersRecorded == nil || *pushes[0].LayersRecorded != 3 {
			t.Errorf("after %v: %+v, want 3 layers recorded", f, pushes)
		}
	}
}

// An event of a newer program waits for that program: no sink gives it up, and
// none goes on behind it.
func TestNewerEventWaits(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	if _, err := r.Journal.Append(t.Context(), journal.Pushes, 1, []byte(`{"v":99}`)); err != nil {
		t.Fatal(err)
	}
	r.push(image("a", 1))
	r.until("the sinks have tried", func() bool { return r.account.tried.Load() > 4 })
	letters, err := r.DeadLetters.All()
	if err != nil {
		t.Fatal(err)
	}
	if len(letters) > 0 || len(r.records()) > 0 || r.pushes() != 0 {
		t.Errorf("letters %+v, %d records, %d pushes; want none", letters, len(r.records()), r.pushes())
	}
}
