package notifier

import (
	"fmt"
	"iter"
	"path/filepath"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/records"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/stats"
)

// A sink fails while the journal reaches its limit: health and metrics report what it lost,
// each push can be looked up, and the counter loses nothing.
func TestJournalLimit(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.stop()
	r.limit = 128 << 10
	r.open(nil)
	r.account.down.Store(true)
	const n = 300
	for i := range n {
		r.push(image(fmt.Sprint(i), 5))
		if i%20 == 19 {
			r.until("the counter is up to date", func() bool { return r.counter.Latest(uint8(journal.Pushes)) == uint64(i+1) })
		}
	}
	r.until("the journal has dropped events", func() bool { return r.failed("records") > 0 && r.journal.Status(journal.Pushes).Bytes < 2*r.limit })
	r.account.down.Store(false)
	r.drain()
	lost := r.failed("records")
	if lost == 0 || lost > n-50 || r.failed(sink.Counters) != 0 {
		t.Errorf("the records sink lost %d pushes, the counter %d", lost, r.failed(sink.Counters))
	}
	if got := r.pushes(); got != n {
		t.Errorf("%d pushes counted, want %d", got, n)
	}
	r.exactLetters(n)
	// It also counts letters that were removed, of events that the sink was handling.
	if got := testutil.ToFloat64(r.metrics.Letters.WithLabelValues("records")); int(got) < lost || int(got) > n {
		t.Errorf("the metric counts %v, want %d or a few more", got, lost)
	}
	for range 2 {
		if got := testutil.CollectAndCount(r.Notifier, "tidings_dead_letters"); got != 2 {
			t.Errorf("%d sinks in the gauge, want 2", got)
		}
		r.reopen(nil)
		if got := r.failed("records"); got != lost {
			t.Errorf("%d dead letters after a restart, want %d", got, lost)
		}
		r.exactLetters(n)
	}
}

// exactLetters checks that each of n pushes of images of 5 layers has its records or a letter.
func (r *rig) exactLetters(n int) {
	r.t.Helper()
	written := map[string]int{}
	for _, rec := range r.list(lexicon.NSIDLayer) {
		written[rec["manifest"].(string)]++
	}
	for i := range n {
		digest := image(fmt.Sprint(i), 5).Digest
		l, found, err := r.dead.Find(pushesOf("records"), uint64(i+1))
		if err != nil {
			r.t.Fatal(err)
		}
		got := written[lexicon.ManifestURI(owner, digest)]
		if found && (got != 0 || l.Digest != digest) || !found && got != 5 {
			r.t.Errorf("push %d has %d records and the letter %+v", i+1, got, l)
		}
	}
}

// Events that a sink handles while the journal drops them have no letters.
func TestDroppedWhileHandled(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.stop()
	r.limit = 128 << 10
	r.open(nil)
	n := 0
	push := func(count int) {
		for range count {
			r.push(image(fmt.Sprint(n), 5))
			n++
		}
		r.until("the counter is up to date", func() bool { return r.counter.Latest(uint8(journal.Pushes)) == uint64(n) })
	}
	if err := r.PauseSink(t.Context(), "records"); err != nil {
		t.Fatal(err)
	}
	const handled = 60 // of which 40 are in the first batch
	push(handled)
	r.account.mu.Lock() // the sink waits while it sends the batch
	if err := r.ResumeSink("records"); err != nil {
		t.Fatal(err)
	}
	r.until("a batch is in the outbox", func() bool {
		batched, err := records.LastBatched(r.Notifier.state)
		return err == nil && batched > 1
	})
	for r.journal.Status(journal.Pushes).First <= handled {
		push(20)
	}
	if r.failed("records") == 0 {
		t.Error("no letter of an event that is not in the outbox yet")
	}
	r.account.mu.Unlock()
	r.drain()
	for seq := uint64(1); seq <= handled; seq++ {
		if l, found, err := r.dead.Find(pushesOf("records"), seq); found || err != nil {
			t.Errorf("the letter %+v, %v, of an event that was being handled", l, err)
		}
	}
	r.exactLetters(n)
}

// The API shows pushes as failed that the journal dropped before they were counted, also
// after a restart.
func TestJournalLimitBeforeCounted(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.stop()
	r.limit = 64 << 10
	r.open(nil)
	r.full.Store(true)
	const n = 200
	for i := range n {
		r.push(image(fmt.Sprint(i), 5).as("oss/app", fmt.Sprint("v", i)))
	}
	r.until("the journal has dropped events", func() bool {
		return r.failed(sink.Counters) > 0 && r.journal.Status(journal.Pushes).Bytes < 2*r.limit
	})
	r.full.Store(false)
	r.drain()
	lost := r.failed(sink.Counters)
	if lost == 0 || int(r.pushes())+lost < n {
		t.Errorf("%d pushes are counted and %d given up, of %d", r.pushes(), lost, n)
	}
	for range 2 {
		pushes, err := r.Pushes(2*n, true)
		if err != nil {
			t.Fatal(err)
		}
		states := map[string]int{}
		for i, p := range pushes {
			states[p.State]++
			if want := fmt.Sprint("v", n-1-i); len(p.Tags) != 1 || p.Tags[0] != want {
				t.Fatalf("push %d of the list is %+v, want tag %s", i, p, want)
			}
		}
		if failed := n - int(r.pushes()); len(pushes) != n || states[stateFailed] < failed || failed == 0 {
			t.Errorf("the API shows %d pushes, %v, want %d and at least %d failed", len(pushes), states, n, failed)
		}
		if few, err := r.Pushes(3, true); err != nil || len(few) != 3 {
			t.Errorf("%d pushes, %v, want 3", len(few), err)
		}
		same := func(a, b stats.Push) bool { return a.ID == b.ID && a.State == b.State } // descriptions are added later
		if shown, err := r.Pushes(2*n, false); err != nil || !slices.EqualFunc(shown, pushes, same) {
			t.Errorf("%d public pushes, %v, want all %d", len(shown), err, len(pushes))
		}
		r.reopen(nil)
	}
}

// The event of a manifest that was found in storage is not a push of the API, also if the
// journal drops it before the counter has read it.
func TestFoundInStorageIsNoPush(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.stopSinks()
	events := entriesOf(t, 1, pushEvent("oss/app", "sha256:0", counts.Push), pushEvent("oss/app", "sha256:1", ""))
	if err := r.dead.Dropped(journal.Pushes, sink.Counters, 1, 2, events); err != nil {
		t.Fatal(err)
	}
	for _, all := range []bool{true, false} {
		pushes, err := r.Pushes(10, all)
		if err != nil || len(pushes) != 1 || pushes[0].Digest != "sha256:0" {
			t.Errorf("all %v: got %+v, %v", all, pushes, err)
		}
	}
}

// pushEvent is the event of a push; class "" is that of a manifest that was found in storage.
func pushEvent(repository, digest string, class counts.Class) event.Event {
	return event.Event{Version: event.Version, Class: class, NotifyManifestInput: lexicon.NotifyManifestInput{
		Repository: repository, ManifestDigest: digest, Operation: event.OpPush,
	}}
}

// entriesOf are events in the journal, from a sequence number on.
func entriesOf(t testing.TB, first uint64, events ...event.Event) iter.Seq2[journal.Entry, error] {
	return func(yield func(journal.Entry, error) bool) {
		for i, e := range events {
			payload, err := e.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if !yield(journal.Entry{Seq: first + uint64(i), Payload: payload}, nil) {
				return
			}
		}
	}
}

func (r *rig) failed(sink string) (n int) {
	for _, h := range r.Health() {
		if h.Sink == sink {
			n += h.Failed
		}
	}
	return n
}

// Without pending events the journal has one or two segments, although the counter has its
// own cursor.
func TestJournalIsTrimmed(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.stop()
	r.limit = 1 << 20
	r.open(nil)
	for i := range 100 {
		p := image(fmt.Sprint(i), 20)
		r.push(p)
		for range 10 {
			r.Pull(Pull{Method: "GET", Repository: p.Repository, Digest: p.Digest, MediaType: p.MediaType})
		}
	}
	r.drain()
	r.until("the journal is small", func() bool {
		return r.journal.Status(journal.Pushes).Segments <= 2 && r.journal.Status(journal.Pulls).Segments <= 2
	})
	files, err := filepath.Glob(filepath.Join(r.dir, "journal", "*.seg"))
	if err != nil || len(files) > 4 {
		t.Errorf("files %v, %v", files, err)
	}
	r.reopen(nil)
	if got := r.pushes(); got != 100 {
		t.Errorf("%d pushes counted, want 100", got)
	}
}
