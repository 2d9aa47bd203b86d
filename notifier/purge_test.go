package notifier

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/announce"
	"github.com/tidings-dev/tidings/notifier/pushrow"
	"github.com/tidings-dev/tidings/notifier/records"
)

// wantRecordsOf checks how many records each of some images has, and that no other has any.
func (r *rig) wantRecordsOf(when string, want map[string]int) {
	r.t.Helper()
	got := map[string]int{}
	for _, record := range r.list(lexicon.NSIDLayer) {
		_, digest, _ := lexicon.ParseManifestURI(record["manifest"].(string))
		got[digest]++
	}
	if !maps.Equal(got, want) {
		r.t.Errorf("%s: records %v, want %v", when, got, want)
	}
}

// What was pushed before a purge has no records after it, whether they are written, in the
// outbox or pending; what is pushed after it, before the sink has handled it, has.
func TestPurgeIsOrdered(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	other, again, sent, pending, late := image("other", 1), image("again", 1), image("sent", 2), image("pending", 2), image("late", 3)
	r.push(other.as("oss/other", "v1"))
	r.push(again.as("oss/app", "v0"))
	r.drain()
	r.account.down.Store(true)
	r.push(sent.as("oss/app", "v1"))
	r.until("the batch is in the outbox", func() bool {
		batched, err := records.LastBatched(r.state)
		return err == nil && batched == 3
	})
	r.push(pending.as("oss/app", "v2"))
	r.purge("oss/app")
	r.push(again.as("oss/app", "v0"))
	r.push(late.as("oss/app", "v3"))
	if published, err := r.stores.Published("oss/app"); err != nil || published {
		t.Errorf("what is found in storage is published while the purge is pending: %v", err)
	}
	r.account.down.Store(false)
	r.drain()
	want := map[string]int{other.Digest: 1, again.Digest: 1, late.Digest: 3}
	r.wantRecordsOf("after the purge", want)
	for _, seq := range []uint64{3, 4} {
		var result pushrow.Records
		if _, err := pushrow.Get(r.state, seq, pushrow.RecordsPart, &result); err != nil || result.Reason != "its repository was purged" {
			t.Errorf("the result of push %d: %+v, %v", seq, result, err)
		}
	}
	if published, err := r.stores.Published("oss/app"); err != nil || !published {
		t.Errorf("what is found in storage is not published after the next push: %v", err)
	}
	r.consistent()
	before := r.stored(lexicon.NSIDLayer)
	if _, err := r.RewindSink(t.Context(), records.Name, 0, time.Time{}); err != nil {
		t.Fatal(err)
	}
	r.drain()
	if after := r.stored(lexicon.NSIDLayer); !slices.Equal(slices.Sorted(maps.Keys(after)), slices.Sorted(maps.Keys(before))) {
		t.Error("a sink that was rewound writes the records of later pushes again")
	}
	r.wantRecordsOf("after a rewind", want)
	if err := r.stores.Request(); err != nil {
		t.Fatal(err)
	}
	r.reopen(nil)
	r.reconciled()
	r.wantRecordsOf("after a reconciliation", want)
}

// Wherever the process is killed while the records sink purges a repository, exactly the
// records of the pushes before the purge are deleted in the end: those of pushes before and
// after the kill stay.
func TestPurgeKilled(t *testing.T) {
	t.Parallel()
	points := 0
	for killed := true; killed; {
		points++
		for _, applied := range []bool{false, true} {
			killed = testPurgeKilled(t, crasher{left: points, applied: applied})
		}
	}
	if points < 7 { // put a batch, write it, clear it: for two batches
		t.Errorf("the process was killed at %d points", points-1)
	}
}

func testPurgeKilled(t *testing.T, crash crasher) (killed bool) {
	when := fmt.Sprintf("killed at point %d, applied %v", crash.left, crash.applied)
	r, _ := newManualRig(t, nil)
	step := func() {
		t.Helper()
		if err := r.recordsStep(); err != nil {
			t.Fatal(err)
		}
	}
	big, gone, shared, back := image("big", 150), image("gone", 90), image("shared", 2), image("back", 3)
	r.push(big.as("oss/app", "v1"))
	r.push(gone.as("oss/app", "v2"))
	r.push(shared.as("oss/app", "v3"))
	r.push(shared.as("oss/other", "v3"))
	r.push(back.as("oss/app", "v4"))
	step()
	r.push(image("pending", 2).as("oss/app", "v5"))
	r.purge("oss/app")
	late, later := image("late", 2), image("later", 1)
	r.push(back.as("oss/app", "v4"))
	r.push(late.as("oss/app", "v6"))
	r.stop()
	r.crash = &crasher{}
	r.open(nil)
	*r.crash = crash
	killed = r.recordsStep() != nil
	if killed != r.crash.dead {
		t.Fatalf("%s: the sink failed", when)
	}
	r.reopenCopy(nil)
	r.push(big.as("oss/app", "v1"))
	r.push(later.as("oss/app", "v7"))
	step()
	r.wantRecordsOf(when, map[string]int{shared.Digest: 2, back.Digest: 3, late.Digest: 2, big.Digest: 150, later.Digest: 1})
	r.consistent()
	r.stop()
	return killed
}

// A purge that is killed before it is durable has no effect on images, and after it the whole;
// in both cases a later push is published.
func TestPurgeRequestKilled(t *testing.T) {
	t.Parallel()
	for left := 1; ; left++ {
		for _, applied := range []bool{false, true} {
			crash := crasher{left: left, applied: applied}
			when := fmt.Sprintf("killed at point %d, applied %v", left, applied)
			r, _ := newManualRig(t, nil)
			r.crash = &crasher{}
			r.reopen(nil)
			early, late := image("early", 2), image("late", 1)
			r.push(early.as("oss/app", "v1"))
			if err := r.recordsStep(); err != nil {
				t.Fatal(err)
			}
			r.apply(repo.Write{Action: repo.Create, Collection: lexicon.NSIDStats, RKey: lexicon.StatsKey(owner, "oss/app"), Record: []byte("\xa1\x65$type\x72io.atcr.hold.stats")})
			before := r.events()
			*r.crash = crash
			_, err := r.stores.Purge(t.Context(), "oss/app")
			if killed := r.crash.dead; killed != (err != nil) {
				t.Fatalf("%s: %v", when, err)
			} else if !killed {
				if left < 3 { // delete the record of the counts, note the event
					t.Errorf("the process was killed at %d points", left-1)
				}
				return
			}
			r.reopenCopy(nil)
			recorded := r.events() > before
			r.push(late.as("oss/app", "v2"))
			if err := r.recordsStep(); err != nil {
				t.Fatal(err)
			}
			want := map[string]int{early.Digest: 2, late.Digest: 1}
			if recorded {
				delete(want, early.Digest)
			}
			r.wantRecordsOf(when, want)
			r.consistent()
			r.stop()
		}
	}
}

// Wherever the process is killed while the announce sink purges a repository, the posts of the
// pushes before the purge are deleted in the end, and each push after it is announced once.
func TestPurgePostsKilled(t *testing.T) {
	t.Parallel()
	points := 0
	for killed := true; killed; {
		points++
		for _, applied := range []bool{false, true} {
			killed = testPurgePostsKilled(t, crasher{left: points, applied: applied})
		}
	}
	if points < 8 {
		t.Errorf("the process was killed at %d points", points-1)
	}
}

func testPurgePostsKilled(t *testing.T, crash crasher) (killed bool) {
	when := fmt.Sprintf("killed at point %d, applied %v", crash.left, crash.applied)
	cfg := policy()
	r, m := newManualRig(t, cfg)
	pass := func(d time.Duration) {
		t.Helper()
		m.Pass(d)
		r.mustStep()
	}
	one, two, three := image("one", 1), image("two", 1), image("three", 1)
	pass(0)
	r.push(one.as("oss/app", "v1"))
	r.push(one.as("oss/other", "v1"))
	pass(time.Minute)
	r.push(two.as("oss/app", "v2"))
	r.push(three.as("oss/app", "v3"))
	pass(time.Minute)
	pass(20 * time.Minute) // v2 joins the post of v3
	pass(20 * time.Minute)
	if got := r.texts(); len(got) != 3 {
		t.Fatalf("posts before the purge: %q", got)
	}
	before := r.keys("oss/app:v1 was pushed")
	r.push(image("pending", 1).as("oss/app", "v4"))
	r.purge("oss/app")
	r.push(one.as("oss/app", "v1"))
	m.Pass(time.Minute)
	r.stop()
	r.crash = &crasher{}
	r.open(cfg)
	*r.crash = crash
	killed = r.announceStep() != nil
	if killed != r.crash.dead {
		t.Fatalf("%s: the sink failed", when)
	}
	r.reopenCopy(cfg)
	r.push(two.as("oss/app", "v2"))
	for range 3 {
		pass(time.Minute)
		pass(20 * time.Minute)
	}
	got := r.texts()
	slices.Sort(got)
	if want := []string{"oss/app:v1 was pushed", "oss/app:v2 was pushed", "oss/other:v1 was pushed"}; !slices.Equal(got, want) {
		t.Errorf("%s: posts %q, want %q", when, got, want)
	}
	if after := r.keys("oss/app:v1 was pushed"); len(after) != 1 || slices.Equal(after, before) {
		t.Errorf("%s: the post of v1 is %q, before the purge it was %q", when, after, before)
	}
	r.stop()
	return killed
}

// A letter from before a purge publishes nothing when it is retried, and the retry says so;
// also one that was retried before the purge.
func TestPurgeEndsRetries(t *testing.T) {
	t.Parallel()
	for sink, collection := range map[string]string{records.Name: lexicon.NSIDLayer, announce.Name: lexicon.NSIDPost} {
		for _, early := range []bool{false, true} {
			t.Run(fmt.Sprint(sink, " retried before the purge ", early), func(t *testing.T) {
				t.Parallel()
				r := newRig(t, shortWindows())
				r.refuse(collection)
				r.push(image("early", 2).as("oss/app", "v1"))
				r.drain()
				letters := r.letters()
				if len(letters) != 1 || letters[0].Sink != sink {
					t.Fatalf("letters %+v", letters)
				}
				retry := func() error {
					return r.RetryLetter(t.Context(), pushesOf(sink), letters[0].First)
				}
				if err := r.PauseSink(t.Context(), sink); err != nil {
					t.Fatal(err)
				}
				r.refuse("")
				if early {
					if err := retry(); err != nil {
						t.Fatal(err)
					}
				}
				r.purge("oss/app")
				if err := retry(); !errors.Is(err, ErrTooLate) || !strings.Contains(err.Error(), "oss/app was purged") {
					t.Errorf("the retry after the purge: %v", err)
				}
				if err := r.ResumeSink(sink); err != nil {
					t.Fatal(err)
				}
				r.drain()
				r.until("the posts are deleted", func() bool { return len(r.posts()) == 0 })
				if len(r.records()) > 0 {
					t.Errorf("records %v", r.records())
				}
				if left := len(r.letters()); left != 1 && !early || left != 0 && early {
					t.Errorf("%d letters", left)
				}
				r.push(image("early", 2).as("oss/app", "v1"))
				r.drain()
				r.until("the post is written", func() bool { return len(r.posts()) == 1 })
				if len(r.records()) != 2 {
					t.Errorf("records after the next push %v", r.records())
				}
			})
		}
	}
}
