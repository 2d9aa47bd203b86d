package notifier

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/sink"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/stats"
)

func openState(t *testing.T, cfg state.Config) *store.Store {
	t.Helper()
	db, err := state.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func deadLetters(db *store.Store) *DeadLetters { return NewDeadLetters(state.OnPebble(db), db.Space) }

// allLetters returns the letters by sink and event, those in memory last.
func allLetters(d *DeadLetters) ([]deadLetter, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.load(); err != nil {
		return nil, err
	}
	var all []deadLetter
	err := d.scan(state.Prefix(state.DeadLetters), func(_, _ []byte, l *deadLetter) bool {
		all = append(all, *l)
		return true
	})
	for _, index := range d.boxes {
		if index.unwritten != nil {
			all = append(all, *index.unwritten)
		}
	}
	return all, err
}

// letterCounts returns the number of events that each sink has letters of.
func letterCounts(d *DeadLetters) (map[string]int, error) {
	boxes, err := d.count()
	counts := map[string]int{}
	for box, n := range boxes {
		counts[box.sink] += n
	}
	return counts, err
}

// entries are events of the push stream from a sequence number on, one per operation.
func entries(t *testing.T, first uint64, operations ...string) iter.Seq2[journal.Entry, error] {
	return func(yield func(journal.Entry, error) bool) {
		for i, op := range operations {
			seq := first + uint64(i)
			e := event.Event{Version: event.Version, Time: time.Unix(int64(seq), 0).UTC(), NotifyManifestInput: lexicon.NotifyManifestInput{
				Repository: "oss/app", Tag: fmt.Sprint("v", seq), ManifestDigest: fmt.Sprint("sha256:", seq), Operation: op}}
			if op == event.OpPush {
				e.Class = counts.Push
			}
			payload, err := e.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if !yield(journal.Entry{Seq: seq, Payload: payload}, nil) {
				return
			}
		}
	}
}

// Each push that the journal drops has a letter that identifies it.
func TestDropped(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db := openState(t, state.Config{Dir: dir})
	d := deadLetters(db)
	metrics := sink.NewMetrics()
	d.setMetrics(metrics)
	for range 2 { // after a crash the journal repeats the call
		if err := d.Dropped(journal.Pushes, "records", 4, 10, entries(t, 4, event.OpPush, event.OpPull, event.OpPull, event.OpDelete, event.OpPull, event.OpPush, "?")); err != nil {
			t.Fatal(err)
		}
	}
	if got := testutil.ToFloat64(metrics.Letters.WithLabelValues("records")); got != 14 {
		t.Errorf("the metric counts %v, want 14", got)
	}
	check := func(d *DeadLetters) {
		t.Helper()
		all, err := allLetters(d)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, l := range all {
			got = append(got, fmt.Sprintln(l.Sink, l.Stream, l.First, l.Last, l.Operation, l.Repository, l.Tag, l.Digest, l.Happened.Second()))
			if l.Reason == "" || l.Time.IsZero() || l.Event != nil {
				t.Errorf("letter %+v", l)
			}
		}
		want := []string{
			"records pushes 4 4 push oss/app v4 sha256:4 4\n",
			"records pushes 5 6     0\n",
			"records pushes 7 7 delete oss/app v7 sha256:7 7\n",
			"records pushes 8 8     0\n",
			"records pushes 9 9 push oss/app v9 sha256:9 9\n",
			"records pushes 10 10 ? oss/app v10 sha256:10 10\n",
		}
		if !slices.Equal(got, want) {
			t.Fatalf("letters\n%q, want\n%q", got, want)
		}
		if n, err := letterCounts(d); err != nil || len(n) != 1 || n["records"] != 7 {
			t.Errorf("letterCounts = %v, %v; want 7", n, err)
		}
		for seq, want := range map[uint64]bool{3: false, 4: true, 6: true, 9: true, 10: true, 11: false} {
			l, ok, err := d.find("records", seq)
			if err != nil || ok != want || ok && (l.First > seq || l.Last < seq || l.Reason == "") {
				t.Errorf("find(%d) = %+v, %v, %v", seq, l, ok, err)
			}
		}
		if _, ok, err := d.find("announce", 4); ok || err != nil {
			t.Errorf("a letter of another sink: %v, %v", ok, err)
		}
	}
	check(d)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	check(deadLetters(openState(t, state.Config{Dir: dir})))
}

// An unreadable event is in one letter with all that follow.
func TestDroppedUnreadable(t *testing.T) {
	t.Parallel()
	d := deadLetters(openState(t, state.Config{Dir: t.TempDir()}))
	damaged := errors.New("damaged")
	broken := func(err error) iter.Seq2[journal.Entry, error] {
		return func(yield func(journal.Entry, error) bool) {
			for e := range entries(t, 1, event.OpPush, event.OpPush) {
				yield(e, nil)
			}
			yield(journal.Entry{}, err)
		}
	}
	if err := d.Dropped(journal.Pushes, "records", 1, 9, broken(journal.ErrClosed)); !errors.Is(err, journal.ErrClosed) {
		t.Errorf("Dropped: %v, want ErrClosed, which keeps the events", err)
	}
	if err := d.Dropped(journal.Pushes, "records", 1, 9, broken(damaged)); err != nil {
		t.Fatal(err)
	}
	all, err := allLetters(d)
	if err != nil || len(all) != 3 || all[2].First != 3 || all[2].Last != 9 {
		t.Errorf("letters %+v, %v", all, err)
	}
}

// Pushes and pulls that the counter gave up have separate letters, although their sequence
// numbers overlap.
func TestDroppedStreams(t *testing.T) {
	t.Parallel()
	d := deadLetters(openState(t, state.Config{Dir: t.TempDir()}))
	if err := d.Dropped(journal.Pushes, counterSink, 1, 2, entries(t, 1, event.OpPush, event.OpPush)); err != nil {
		t.Fatal(err)
	}
	if err := d.Dropped(journal.Pulls, counterSink, 1, 500, nil); err != nil {
		t.Fatal(err)
	}
	if err := d.add(journal.Pulls, counterSink, 501, "it can't be decoded", nil); err != nil {
		t.Fatal(err)
	}
	all, err := allLetters(d)
	if err != nil || len(all) != 4 {
		t.Errorf("letters %+v, %v; want 4", all, err)
	}
	if n, err := letterCounts(d); err != nil || n[counterSink] != 503 {
		t.Errorf("letterCounts = %v, %v; want 503", n, err)
	}
	for seq, want := range map[uint64]bool{1: true, 2: true, 3: false, 501: false} {
		if _, ok, err := d.find(counterSink, seq); ok != want || err != nil {
			t.Errorf("find(%d) = %v, %v", seq, ok, err)
		}
	}
}

// Letters of older versions, which have no stream, can be read.
func TestOldLetters(t *testing.T) {
	t.Parallel()
	db := openState(t, state.Config{Dir: t.TempDir()})
	for first, letter := range map[uint64]string{
		3:  `{"sink":"counters","first":3,"last":3,"reason":"decode event","time":"2026-01-01T00:00:00Z","event":{"v":1}}`,
		10: `{"sink":"counters","first":10,"last":19,"reason":"the journal's limit was reached while these push events waited","time":"2026-01-01T00:00:00Z"}`,
		30: `{"sink":"counters","first":30,"last":39,"reason":"the journal's limit was reached while these pull events waited","time":"2026-01-01T00:00:00Z"}`,
	} {
		if err := state.Set(state.OnPebble(db), letterBox{counterSink, journal.Pushes}.key(first), []byte(letter), state.Sync); err != nil {
			t.Fatal(err)
		}
	}
	d := deadLetters(db)
	for seq, want := range map[uint64]bool{3: true, 4: false, 12: true, 35: false} {
		l, ok, err := d.find(counterSink, seq)
		if ok != want || err != nil || ok && l.Reason == "" {
			t.Errorf("find(%d) = %+v, %v, %v", seq, l, ok, err)
		}
	}
	if n, err := letterCounts(d); err != nil || n[counterSink] != 21 {
		t.Errorf("letterCounts = %v, %v; want 21", n, err)
	}
}

// The number and the bytes of letters are limited: the oldest are merged into one, which
// keeps the number of their events.
func TestLettersMerged(t *testing.T) {
	t.Parallel()
	for _, bound := range []struct{ letters, bytes int }{{20, 1 << 30}, {1 << 30, 100 << 10}} {
		db := openState(t, state.Config{Dir: t.TempDir()})
		d := deadLetters(db)
		d.maxLetters, d.maxBytes = bound.letters, bound.bytes
		event, err := json.Marshal(map[string]any{"v": 1, "filler": bytes.Repeat([]byte("x"), 3<<10)})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.add(journal.Pushes, "records2", 1, "no", nil); err != nil {
			t.Fatal(err)
		}
		const n = 200
		for seq := uint64(1); seq <= n; seq++ {
			if err := d.add(journal.Pushes, "records", 2*seq, "no", event); err != nil {
				t.Fatal(err)
			}
		}
		for _, d := range []*DeadLetters{d, deadLetters(db)} {
			all, err := allLetters(d)
			if err != nil {
				t.Fatal(err)
			}
			size := 0
			for _, l := range all {
				size += len(l.Event)
			}
			if size > bound.bytes || len(all) < 10 || len(all) > min(30, bound.letters+1) {
				t.Errorf("%d letters of %d bytes are kept, of at most %+v", len(all), size, bound)
			}
			if count, err := letterCounts(d); err != nil || count["records"] != n || count["records2"] != 1 {
				t.Errorf("letterCounts = %v, %v; want %d", count, err, n)
			}
			for seq, want := range map[uint64]bool{2: false, 3: false, 2 * n: true, 2*n - 1: false} {
				if _, ok, err := d.find("records", seq); ok != want || err != nil {
					t.Errorf("find(%d) = %v, %v", seq, ok, err)
				}
			}
		}
	}
}

// smallDisk reports a given amount of free space.
type smallDisk struct {
	vfs.FS
	free uint64
}

func (d *smallDisk) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{AvailBytes: d.free, TotalBytes: 1 << 40, UsedBytes: 1<<40 - d.free}, nil
}

// On a full disk the journal must be able to drop events: their letter is in memory until
// there is free space.
func TestDroppedOnFullDisk(t *testing.T) {
	t.Parallel()
	disk := &smallDisk{FS: vfs.Default, free: 1 << 30}
	dir := t.TempDir()
	db := openState(t, state.Config{Dir: dir, Reserve: 1 << 20, FS: disk})
	d := deadLetters(db)
	if err := d.Dropped(journal.Pushes, "records", 1, 2, entries(t, 1, event.OpPush, event.OpPush)); err != nil {
		t.Fatal(err)
	}
	disk.free = 1000
	for first := uint64(3); first < 9; first += 2 {
		if err := d.Dropped(journal.Pushes, "records", first, first+1, entries(t, first, event.OpPush, event.OpPush)); err != nil {
			t.Fatal(err)
		}
	}
	check := func(d *DeadLetters) {
		t.Helper()
		all, err := allLetters(d)
		if err != nil || len(all) != 3 || all[2].First != 3 || all[2].Last != 8 || all[2].Sink != "records" {
			t.Errorf("letters %+v, %v", all, err)
		}
		if n, err := letterCounts(d); err != nil || n["records"] != 8 {
			t.Errorf("letterCounts = %v, %v; want 8", n, err)
		}
		for seq, want := range map[uint64]bool{1: true, 5: true, 8: true, 9: false} {
			if _, ok, err := d.find("records", seq); ok != want || err != nil {
				t.Errorf("find(%d) = %v, %v", seq, ok, err)
			}
		}
	}
	check(d)
	disk.free = 1 << 30
	check(d)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	check(deadLetters(openState(t, state.Config{Dir: dir})))
}

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
	if lost == 0 || lost > n-50 || r.failed(counterSink) != 0 {
		t.Errorf("the records sink lost %d pushes, the counter %d", lost, r.failed(counterSink))
	}
	if got := r.pushes(); got != n {
		t.Errorf("%d pushes counted, want %d", got, n)
	}
	if got := len(r.records()); got < 5*(n-lost) { // those that the sink was processing are written, too
		t.Errorf("%d records of %d pushes, of which %d are lost", got, n, lost)
	}
	if got := testutil.ToFloat64(r.metrics.Letters.WithLabelValues("records")); int(got) != lost {
		t.Errorf("the metric counts %v, want %d", got, lost)
	}
	for range 2 {
		for seq := uint64(1); seq <= n; seq++ {
			l, ok, err := r.dead.find("records", seq)
			if err != nil || ok != (int(seq) <= lost) || ok && l.Digest != image(fmt.Sprint(seq-1), 5).Digest {
				t.Fatalf("find(%d) = %+v, %v, %v", seq, l, ok, err)
			}
		}
		if got := testutil.CollectAndCount(r.Notifier, "tidings_dead_letters"); got != 2 {
			t.Errorf("%d sinks in the gauge, want 2", got)
		}
		r.reopen(nil)
		if got := r.failed("records"); got != lost {
			t.Errorf("%d dead letters after a restart, want %d", got, lost)
		}
	}
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
		return r.failed(counterSink) > 0 && r.journal.Status(journal.Pushes).Bytes < 2*r.limit
	})
	r.full.Store(false)
	r.drain()
	lost := r.failed(counterSink)
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
	events := func(yield func(journal.Entry, error) bool) {
		for i, class := range []counts.Class{counts.Push, ""} {
			e := event.Event{Version: event.Version, Class: class, NotifyManifestInput: lexicon.NotifyManifestInput{
				Repository: "oss/app", ManifestDigest: fmt.Sprint("sha256:", i), Operation: event.OpPush,
			}}
			payload, err := e.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if !yield(journal.Entry{Seq: uint64(1 + i), Payload: payload}, nil) {
				return
			}
		}
	}
	if err := r.dead.Dropped(journal.Pushes, counterSink, 1, 2, events); err != nil {
		t.Fatal(err)
	}
	for _, all := range []bool{true, false} {
		pushes, err := r.Pushes(10, all)
		if err != nil || len(pushes) != 1 || pushes[0].Digest != "sha256:0" {
			t.Errorf("all %v: got %+v, %v", all, pushes, err)
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
