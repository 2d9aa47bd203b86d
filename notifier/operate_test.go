package notifier

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/deadletters"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/operate"
	"github.com/tidings-dev/tidings/notifier/runner"
	"github.com/tidings-dev/tidings/notifier/state"
)

// A sink that an operator pauses keeps its events, also over a restart; the other sinks go
// on. The health says since when.
func TestPauseSink(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"records", "announce", "counters"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, shortWindows())
			r.push(image("one", 2).as("oss/app", "v1"))
			r.drain()
			if err := r.PauseSink(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			r.push(image("two", 2).as("oss/app", "v2"))
			for range 2 {
				r.until("the others have processed it", func() bool {
					for _, h := range r.Health() {
						if (h.Sink == name) != (h.Depth > 0) && h.Stream == "pushes" {
							return false
						}
					}
					return true
				})
				if h := r.sink(name); h.State != "paused" || !h.ByOperator || !h.Suspended() || !strings.HasPrefix(h.Reason, "paused by operator since 20") || strings.Contains(h.Reason, "finishes") {
					t.Errorf("health %+v", h)
				}
				r.comparePaused(name)
				r.reopen(shortWindows())
				r.until("the sink is idle", func() bool { return !strings.Contains(r.sink(name).Reason, "finishes") })
			}
			if err := r.ResumeSink(name); err != nil {
				t.Fatal(err)
			}
			r.drain()
			if h := r.sink(name); len(r.records()) != 4 || len(r.posts()) != 2 || len(r.letters()) != 0 || h.Paused() {
				t.Errorf("%d records, %d posts, letters %v, health %+v", len(r.records()), len(r.posts()), r.letters(), h)
			}
			if numbers, _, _, err := r.counter.Repository(t.Context(), "oss/app"); err != nil || numbers.Counts["push"] != 2 {
				t.Errorf("counts %v, %v", numbers, err)
			}
		})
	}
	r := newRig(t, nil)
	if err := r.PauseSink(t.Context(), "announce"); !errors.Is(err, ErrUnknownSink) {
		t.Errorf("a sink that is not configured: %v", err)
	}
	if err := r.ResumeSink("records"); !errors.Is(err, runner.ErrNotPaused) {
		t.Errorf("a sink that is not paused: %v", err)
	}
}

// comparePaused checks the metric, which is 1 for a paused sink.
func (r *rig) comparePaused(name string) {
	r.t.Helper()
	want := "# HELP tidings_sink_paused 1 while an operator has paused a sink, else 0.\n# TYPE tidings_sink_paused gauge\n"
	for _, of := range []string{"announce pushes", "counters pulls", "counters pushes", "records pushes"} {
		sink, stream, _ := strings.Cut(of, " ")
		want += fmt.Sprintf("tidings_sink_paused{sink=%q,stream=%q} %d\n", sink, stream, map[bool]int{true: 1}[sink == name])
	}
	if err := testutil.CollectAndCompare(r.Notifier, strings.NewReader(want), "tidings_sink_paused"); err != nil {
		r.t.Error(err)
	}
}

// A batch that is on its way when its sink is paused is finished, also after a restart.
func TestPauseFinishesBatch(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.account.fail(lostAnswer)
	r.account.unread.Store(true)
	r.push(image("one", 2).as("oss/app", "v1"))
	r.until("the batch is on its way", func() bool { ok, _ := state.Has(r.state, state.RecordsOutbox); return ok })
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := r.PauseSink(short, "records"); err != nil {
		t.Fatal(err)
	}
	r.push(image("two", 2).as("oss/app", "v2"))
	r.reopen(nil) // the account works again
	r.until("the batch is finished", func() bool { return !strings.Contains(r.sink("records").Reason, "finishes") })
	if got := r.records(); len(got) != 2 || r.sink("records").Depth == 0 {
		t.Errorf("%d records, want those of the first push; health %+v", len(got), r.sink("records"))
	}
	if err := r.ResumeSink("records"); err != nil {
		t.Fatal(err)
	}
	r.drain()
	if got := r.records(); len(got) != 4 {
		t.Errorf("%d records, want 4", len(got))
	}
	r.consistent()
}

// Skipped events are dead letters with their events, which a retry handles once.
func TestSkipEvents(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"records", "announce", "counters"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, shortWindows())
			if err := r.PauseSink(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			for i, tag := range []string{"v1", "v2", "v3"} {
				r.push(image(tag, 1+i).as("oss/app", tag))
			}
			box := pushesOf(name)
			if err := r.CheckSkip(box, 0); err != nil {
				t.Errorf("check the first: %v", err)
			}
			if done, err := r.SkipEvents(t.Context(), box, 0); err != nil || done != (operate.Skipped{First: 1, Last: 1, Events: 1}) {
				t.Errorf("the first: %+v, %v", done, err)
			}
			if done, err := r.SkipEvents(t.Context(), box, 2); err != nil || done != (operate.Skipped{First: 1, Last: 2, Events: 1}) {
				t.Errorf("up to 2: %+v, %v", done, err)
			}
			for _, to := range []uint64{9, operate.MaxSkipped + 9} {
				if _, err := r.SkipEvents(t.Context(), box, to); !errors.Is(err, operate.ErrPosition) {
					t.Errorf("up to %d: %v", to, err)
				}
				if err := r.CheckSkip(box, to); !errors.Is(err, operate.ErrPosition) {
					t.Errorf("check up to %d: %v", to, err)
				}
			}
			r.reopen(shortWindows())
			if err := r.ResumeSink(name); err != nil {
				t.Fatal(err)
			}
			r.drain()
			if _, err := r.SkipEvents(t.Context(), box, 0); !errors.Is(err, operate.ErrNothingPending) {
				t.Errorf("when nothing is pending: %v", err)
			}
			letters := r.letters()
			if len(letters) != 2 {
				t.Fatalf("letters %+v", letters)
			}
			count := func() (records, posts int, pushes int64) {
				numbers, _, _, err := r.counter.Repository(t.Context(), "oss/app")
				if err != nil {
					t.Fatal(err)
				}
				return len(r.records()), len(r.posts()), numbers.Counts["push"]
			}
			want := map[string][3]int{"records": {3, 3, 3}, "announce": {6, 1, 3}, "counters": {6, 3, 1}}[name]
			if a, b, c := count(); a != want[0] || b != want[1] || int(c) != want[2] {
				t.Errorf("%d records, %d posts, %d pushes counted; want %v", a, b, c, want)
			}
			for _, l := range letters {
				if l.Reason != "skipped by operator" || l.Event == nil || l.Sink != name || l.Repository != "oss/app" {
					t.Errorf("letter %+v", l)
				}
				if err := r.RetryLetter(t.Context(), box, l.First); err != nil {
					t.Fatal(err)
				}
			}
			r.drain()
			r.reopen(shortWindows())
			r.drain()
			if a, b, c := count(); a != 6 || b != 3 || c != 3 || len(r.letters()) != 0 {
				t.Errorf("after the retry: %d records, %d posts, %d pushes counted, letters %+v", a, b, c, r.letters())
			}
			pushes, err := r.Pushes(10, true)
			if err != nil || len(pushes) != 3 {
				t.Fatalf("%d pushes, %v", len(pushes), err)
			}
			for _, p := range pushes {
				if p.State != "done" {
					t.Errorf("push %+v", p)
				}
			}
		})
	}
}

// An event of the batch on its way is skipped without its records, and the sink goes on.
func TestSkipStuckBatch(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.account.mu.Lock()
	r.account.failing = lexicon.NSIDLayer
	r.account.mu.Unlock()
	r.push(image("stuck", 2).as("oss/app", "v1"))
	r.until("the batch is on its way", func() bool { ok, _ := state.Has(r.state, state.RecordsOutbox); return ok })
	r.push(image("next", 1).as("oss/app", "v2"))
	if done, err := r.SkipEvents(t.Context(), pushesOf("records"), 0); err != nil || done.Events != 1 || done.First != 1 {
		t.Fatalf("%+v, %v", done, err)
	}
	r.account.mu.Lock()
	r.account.failing = ""
	r.account.mu.Unlock()
	r.drain()
	if all := r.letters(); len(r.records()) != 1 || len(all) != 1 || all[0].Event == nil || all[0].Reason != "skipped by operator" {
		t.Errorf("records %v, letters %+v", r.records(), all)
	}
	if err := r.RetryLetter(t.Context(), pushesOf("records"), 1); err != nil {
		t.Fatal(err)
	}
	r.drain()
	if len(r.records()) != 3 || len(r.letters()) != 0 {
		t.Errorf("records %v, letters %+v", r.records(), r.letters())
	}
	r.consistent()
}

// A sink that is rewound writes what is missing and nothing twice, and no count changes.
func TestRewindSink(t *testing.T) {
	t.Parallel()
	r := newRig(t, shortWindows())
	one, two, gone := image("one", 2).as("oss/app", "v1"), image("two", 3).as("oss/app", "v2"), image("gone", 1).as("oss/app", "v3")
	r.push(one)
	r.push(gone)
	r.drain()
	r.delete(gone)
	r.push(two)
	r.drain()
	before := r.list(lexicon.NSIDLayer)
	posts := r.posts()
	for _, name := range []string{"records", "announce"} {
		if err := r.CheckRewind(name, 0, time.Time{}); err != nil {
			t.Errorf("check %s: %v", name, err)
		}
		if done, err := r.RewindSink(t.Context(), name, 0, time.Time{}); err != nil || done.Position != 0 || done.Events != 4 {
			t.Errorf("%s: %+v, %v", name, done, err)
		}
		r.reopen(shortWindows())
		r.drain()
	}
	if got := r.list(lexicon.NSIDLayer); len(got) != len(before) || len(r.posts()) != len(posts) {
		t.Errorf("%d records and %d posts, want %d and %d", len(got), len(r.posts()), len(before), len(posts))
	}
	pushes, err := r.Pushes(10, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pushes {
		if p.State != "done" || p.LayersRecorded == nil || *p.LayersRecorded == 0 || p.PostURI == "" {
			t.Errorf("push %+v", p)
		}
	}
	if numbers, _, _, err := r.counter.Repository(t.Context(), "oss/app"); err != nil || numbers.Counts["push"] != 3 {
		t.Errorf("counts %v, %v", numbers, err)
	}
	// What was skipped and dropped is written once the sink is rewound.
	if err := r.PauseSink(t.Context(), "records"); err != nil {
		t.Fatal(err)
	}
	r.push(image("dropped", 2).as("oss/app", "v4"))
	if _, err := r.SkipEvents(t.Context(), pushesOf("records"), 0); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.ResumeSink("records"), r.dead.Drop(pushesOf("records"), 5)); err != nil {
		t.Fatal(err)
	}
	r.drain()
	if _, err := r.RewindSink(t.Context(), "records", 0, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	r.drain()
	if got := len(r.records()); got != len(before)+2 {
		t.Errorf("%d records, want %d", got, len(before)+2)
	}
	r.consistent()
	for name, want := range map[string]error{"counters": operate.ErrNotRewindable, "remote": ErrUnknownSink} {
		if _, err := r.RewindSink(t.Context(), name, 0, time.Time{}); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
		if err := r.CheckRewind(name, 0, time.Time{}); !errors.Is(err, want) {
			t.Errorf("check %s: %v, want %v", name, err, want)
		}
	}
	if err := r.CheckRewind("records", 0, time.Now().Add(time.Hour)); !errors.Is(err, operate.ErrPosition) {
		t.Errorf("check a time ahead: %v", err)
	}
	if _, err := r.RewindSink(t.Context(), "records", 99, time.Time{}); !errors.Is(err, operate.ErrPosition) {
		t.Errorf("a position ahead: %v", err)
	}
}

// What a sink can't process is given up with its event while the sink goes on. Once the
// cause is mended, a retry has the effect once, also if it is repeated and over a restart. The
// account refuses a valid record: no manifest leads to an invalid one, see
// TestNoManifestIsRefused in package records.
func TestPoison(t *testing.T) {
	t.Parallel()
	var rows map[string][]byte // of the counter, before they were damaged
	for name, test := range map[string]struct {
		sink         string
		poison, mend func(r *rig)
	}{
		"a record that the account refuses": {"records", func(r *rig) { r.refuse(lexicon.NSIDLayer) }, func(r *rig) { r.refuse("") }},
		"a post that the account refuses":   {"announce", func(r *rig) { r.refuse(lexicon.NSIDPost) }, func(r *rig) { r.refuse("") }},
		"a row that can't be decoded":       {"counters", func(r *rig) { rows = r.damageRows("oss/bad") }, func(r *rig) { r.setRows(rows) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, shortWindows())
			r.push(image("zero", 1).as("oss/bad", "v0"))
			r.drain()
			test.poison(r)
			r.push(image("bad", 2).as("oss/bad", "v1"))
			r.drain()
			if test.sink != "counters" {
				test.mend(r) // the account refuses every record or post
			}
			r.push(image("good", 3).as("oss/good", "v1"))
			r.drain()
			test.mend(r)
			letters := r.letters()
			if len(letters) != 1 || letters[0].Sink != test.sink || letters[0].Event == nil || letters[0].Repository != "oss/bad" || letters[0].Tag != "v1" {
				t.Fatalf("letters %+v", letters)
			}
			if err := r.RetryLetter(t.Context(), pushesOf(test.sink), letters[0].First); err != nil {
				t.Fatal(err)
			}
			if err := r.RetryLetter(t.Context(), pushesOf(test.sink), letters[0].First); err == nil {
				r.t.Log("the first retry has ended already")
			}
			r.drain()
			r.reopen(shortWindows())
			r.drain()
			if len(r.letters()) != 0 || len(r.records()) != 6 || len(r.posts()) != 3 {
				t.Errorf("letters %+v, %d records, %d posts", r.letters(), len(r.records()), len(r.posts()))
			}
			for repository, want := range map[string]int64{"oss/bad": 2, "oss/good": 1} {
				if numbers, _, _, err := r.counter.Repository(t.Context(), repository); err != nil || numbers.Counts["push"] != want {
					t.Errorf("%s: counts %v, %v", repository, numbers, err)
				}
			}
		})
	}
}

// damageRows damages the counts of a repository and returns what they were.
func (r *rig) damageRows(repository string) map[string][]byte {
	r.t.Helper()
	rows, damaged := map[string][]byte{}, map[string][]byte{}
	for _, prefix := range []string{"c/r/", "c/u/"} {
		err := r.state.Scan(state.Prefix(prefix+repository+"\x00"), func(key, val []byte) error {
			rows[string(key)], damaged[string(key)] = bytes.Clone(val), []byte{0xff}
			return nil
		})
		if err != nil {
			r.t.Fatal(err)
		}
	}
	if len(rows) == 0 {
		r.t.Fatal("no counts")
	}
	r.setRows(damaged)
	return rows
}

func (r *rig) setRows(rows map[string][]byte) {
	r.t.Helper()
	var b state.Batch
	for key, val := range rows {
		b.Set([]byte(key), val)
	}
	if err := r.state.Commit(&b, state.Sync); err != nil {
		r.t.Fatal(err)
	}
}

// An event that can't be decoded is given up by every sink, in both streams, and a retry
// counts the attempt.
func TestPoisonEvent(t *testing.T) {
	t.Parallel()
	r := newRig(t, shortWindows())
	for _, s := range countedStreams {
		if _, err := r.journal.Append(t.Context(), s, 1, []byte(`{"v":5,"time":"never"}`)); err != nil {
			t.Fatal(err)
		}
	}
	r.push(image("good", 3).as("oss/good", "v1"))
	r.drain()
	letters := r.letters()
	if len(letters) != 4 || len(r.records()) != 3 || len(r.posts()) != 1 {
		t.Fatalf("letters %+v, %d records, %d posts", letters, len(r.records()), len(r.posts()))
	}
	for _, l := range letters {
		box := deadletters.Box{Sink: l.Sink, Stream: journal.Pushes}
		if l.Stream == "pulls" {
			box.Stream = journal.Pulls
		}
		if err := r.RetryLetter(t.Context(), box, l.First); err != nil || l.Event == nil {
			t.Errorf("%s: %v, event %s", l.Sink, err, l.Event)
		}
	}
	r.drain()
	for _, l := range r.letters() {
		if l.Attempts != 2 || l.Retrying || l.Event == nil {
			t.Errorf("letter %+v", l)
		}
	}
	if len(r.letters()) != 4 {
		t.Errorf("letters %+v", r.letters())
	}
}

// Skipped pulls are counted once by retries.
func TestSkipPulls(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	p := image("one", 1).as("oss/app", "v1")
	r.push(p)
	r.drain()
	if err := r.PauseSink(t.Context(), "counters"); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(3) {
		r.Pull(Pull{Method: "GET", Repository: p.Repository, Tag: p.Tag, Digest: p.Digest, MediaType: p.MediaType, Client: fmt.Sprint("192.0.2.", i)})
		r.until("the pull is in the journal", func() bool { return r.journal.Status(journal.Pulls).Last == i+1 })
	}
	box := deadletters.Box{Sink: "counters", Stream: journal.Pulls}
	if done, err := r.SkipEvents(t.Context(), box, 2); err != nil || done.Events != 2 {
		t.Fatalf("%+v, %v", done, err)
	}
	if err := r.ResumeSink("counters"); err != nil {
		t.Fatal(err)
	}
	pulls := func(want int64) {
		t.Helper()
		r.drain()
		if numbers, _, _, err := r.counter.Repository(t.Context(), "oss/app"); err != nil || numbers.Counts["pull"] != want {
			t.Errorf("counts %v, %v; want %d pulls", numbers, err, want)
		}
	}
	pulls(1)
	for seq := range uint64(2) {
		if err := r.RetryLetter(t.Context(), box, seq+1); err != nil {
			t.Fatal(err)
		}
	}
	pulls(3)
	r.reopen(nil)
	pulls(3)
	if err := r.RetryLetter(t.Context(), box, 1); !errors.Is(err, deadletters.ErrNotFound) || len(r.letters()) != 0 {
		t.Errorf("%v, letters %+v", err, r.letters())
	}
}

// At the journal's limit a paused sink loses its oldest events to dead letters, and pushes go
// on. Once it is resumed, a retry of each writes the records once.
func TestPausedAtLimit(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.stop()
	r.limit = 128 << 10
	r.open(nil)
	if err := r.PauseSink(t.Context(), "records"); err != nil {
		t.Fatal(err)
	}
	const n = 200
	for i := range n {
		r.push(image(fmt.Sprint(i), 5))
		if i%20 == 19 {
			r.until("the counter is up to date", func() bool { return r.counter.Latest(uint8(journal.Pushes)) == uint64(i+1) })
		}
	}
	r.until("the journal has dropped events", func() bool { return r.failed("records") > 0 && r.journal.Status(journal.Pushes).Bytes < 2*r.limit })
	if err := r.ResumeSink("records"); err != nil {
		t.Fatal(err)
	}
	r.drain()
	letters := r.letters()
	if len(letters) == 0 {
		t.Error("no letters")
	}
	r.exactLetters(n)
	for i, l := range letters {
		if i%20 == 0 {
			r.drain() // the journal drops retries as well
		}
		if err := r.RetryLetter(t.Context(), pushesOf("records"), l.First); err != nil {
			t.Fatal(err)
		}
	}
	r.drain()
	if got := len(r.records()); got != 5*n || len(r.letters()) != 0 {
		t.Errorf("%d records, want %d; letters %+v", got, 5*n, r.letters())
	}
	r.consistent()
}

// A rewind keeps what was decided about images that other registries report: that of an image
// that has become private is not posted again, and one that is public again keeps its post.
func TestRewindReported(t *testing.T) {
	t.Parallel()
	cfg := shortWindows()
	cfg.Retract = true
	r := newRig(t, cfg)
	hidden, back := image("hidden", 1).as("oss/hidden", "v1"), image("back", 2).as("oss/back", "v1")
	for _, visibility := range []string{"", lexicon.VisibilityPrivate} {
		for _, p := range []Push{hidden, back} {
			r.notifyCanceled(notificationOf(p, owner).as(visibility))
		}
		r.drain()
	}
	r.notifyCanceled(notificationOf(back, owner))
	r.drain()
	r.until("the posts are deleted", func() bool { return len(r.posts()) == 1 })
	post := r.posts()[0]["rkey"]
	for _, name := range []string{"announce", "records"} {
		if done, err := r.RewindSink(t.Context(), name, 0, time.Time{}); err != nil || done.Events != 5 {
			t.Errorf("%s: %+v, %v", name, done, err)
		}
		r.drain()
	}
	r.reopen(cfg)
	r.drain()
	if posts := r.posts(); len(posts) != 1 || posts[0]["rkey"] != post || len(r.records()) != 2 {
		t.Errorf("posts %v, want %v alone; records %v", posts, post, r.records())
	}
}
