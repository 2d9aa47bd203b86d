package deadletters

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
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

func openLetters(db *store.Store) *Store { return New(state.OnPebble(db), db.Space) }

// allLetters returns the letters by sink and event, those in memory last.
func allLetters(d *Store) ([]Letter, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.load(); err != nil {
		return nil, err
	}
	var all []Letter
	err := d.scan(state.Prefix(state.DeadLetters), func(_, _ []byte, l *Letter) bool {
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
func letterCounts(d *Store) (map[string]int, error) {
	boxes, err := d.Count()
	counts := map[string]int{}
	for box, n := range boxes {
		counts[box.Sink] += n
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
	d := openLetters(db)
	metrics := sink.NewMetrics()
	d.SetMetrics(metrics)
	for range 2 { // after a crash the journal repeats the call
		if err := d.Dropped(journal.Pushes, "records", 4, 10, entries(t, 4, event.OpPush, event.OpPull, event.OpPull, event.OpDelete, event.OpPull, event.OpPush, "?")); err != nil {
			t.Fatal(err)
		}
	}
	if got := testutil.ToFloat64(metrics.Letters.WithLabelValues("records")); got != 14 {
		t.Errorf("the metric counts %v, want 14", got)
	}
	check := func(d *Store) {
		t.Helper()
		all, err := allLetters(d)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, l := range all {
			got = append(got, fmt.Sprintln(l.Sink, l.Stream, l.First, l.Last, l.Operation, l.Repository, l.Tag, l.Digest, l.Happened.Second()))
			if l.Reason == "" || l.Time.IsZero() || (l.Event != nil) != (l.Operation != "") {
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
			l, ok, err := d.Find(Box{Sink: "records", Stream: journal.Pushes}, seq)
			if err != nil || ok != want || ok && (l.First > seq || l.Last < seq || l.Reason == "") {
				t.Errorf("Find(%d) = %+v, %v, %v", seq, l, ok, err)
			}
		}
		if _, ok, err := d.Find(Box{Sink: "announce", Stream: journal.Pushes}, 4); ok || err != nil {
			t.Errorf("a letter of another sink: %v, %v", ok, err)
		}
	}
	check(d)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	check(openLetters(openState(t, state.Config{Dir: dir})))
}

// Events that a sink has processed, or processes meanwhile, have no letters, and are not counted.
func TestDroppedProcessed(t *testing.T) {
	t.Parallel()
	d := openLetters(openState(t, state.Config{Dir: t.TempDir()}))
	metrics := sink.NewMetrics()
	d.SetMetrics(metrics)
	pushes := Box{Sink: "records", Stream: journal.Pushes}
	processed := map[uint64]bool{1: true, 3: true}
	d.SetProcessed(func(box Box) (func(uint64) bool, error) {
		return func(seq uint64) bool {
			if box == pushes {
				return processed[seq]
			}
			return seq <= 400
		}, nil
	})
	if err := d.Dropped(journal.Pushes, "records", 1, 6, entries(t, 1, event.OpPush, event.OpPush, event.OpPush, event.OpPush, event.OpPush, event.OpPush)); err != nil {
		t.Fatal(err)
	}
	for _, last := range []uint64{400, 500} {
		if err := d.Dropped(journal.Pulls, "remote", 1, last, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Add(journal.Pushes, "records", 7, "refused", nil); err != nil {
		t.Fatal(err)
	}
	check := func(want ...string) {
		t.Helper()
		all, err := allLetters(d)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, l := range all {
			got = append(got, fmt.Sprint(l.Sink, " ", l.First, "-", l.Last))
		}
		if !slices.Equal(got, want) {
			t.Errorf("letters %q, want %q", got, want)
		}
	}
	check("records 2-2", "records 4-4", "records 5-5", "records 6-6", "records 7-7", "remote 401-500")
	if got := testutil.ToFloat64(metrics.Letters.WithLabelValues("records")); got != 4 {
		t.Errorf("the metric counts %v letters, want 4", got)
	}
	for seq := range uint64(8) {
		processed[seq] = seq != 6
	}
	if _, err := d.BeginRetry(pushes, 5); err != nil {
		t.Fatal(err)
	}
	if err := d.Processed(pushes, []uint64{4, 5, 6, 7}); err != nil { // 2 was not among them
		t.Fatal(err)
	}
	check("records 2-2", "records 5-5", "records 6-6", "records 7-7", "remote 401-500")
}

// An unreadable event is in one letter with all that follow.
func TestDroppedUnreadable(t *testing.T) {
	t.Parallel()
	d := openLetters(openState(t, state.Config{Dir: t.TempDir()}))
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
	d := openLetters(openState(t, state.Config{Dir: t.TempDir()}))
	if err := d.Dropped(journal.Pushes, sink.Counters, 1, 2, entries(t, 1, event.OpPush, event.OpPush)); err != nil {
		t.Fatal(err)
	}
	if err := d.Dropped(journal.Pulls, sink.Counters, 1, 500, nil); err != nil {
		t.Fatal(err)
	}
	if err := d.Add(journal.Pulls, sink.Counters, 501, "it can't be decoded", nil); err != nil {
		t.Fatal(err)
	}
	all, err := allLetters(d)
	if err != nil || len(all) != 4 {
		t.Errorf("letters %+v, %v; want 4", all, err)
	}
	if n, err := letterCounts(d); err != nil || n[sink.Counters] != 503 {
		t.Errorf("letterCounts = %v, %v; want 503", n, err)
	}
	for seq, want := range map[uint64]bool{1: true, 2: true, 3: false, 501: false} {
		if _, ok, err := d.Find(Box{Sink: sink.Counters, Stream: journal.Pushes}, seq); ok != want || err != nil {
			t.Errorf("Find(%d) = %v, %v", seq, ok, err)
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
		if err := state.Set(state.OnPebble(db), Box{sink.Counters, journal.Pushes}.key(first), []byte(letter), state.Sync); err != nil {
			t.Fatal(err)
		}
	}
	d := openLetters(db)
	for seq, want := range map[uint64]bool{3: true, 4: false, 12: true, 35: false} {
		l, ok, err := d.Find(Box{Sink: sink.Counters, Stream: journal.Pushes}, seq)
		if ok != want || err != nil || ok && l.Reason == "" {
			t.Errorf("Find(%d) = %+v, %v, %v", seq, l, ok, err)
		}
	}
	if n, err := letterCounts(d); err != nil || n[sink.Counters] != 21 {
		t.Errorf("letterCounts = %v, %v; want 21", n, err)
	}
}

// The number and the bytes of letters are limited: the oldest are merged into one, which
// keeps the number of their events.
func TestLettersMerged(t *testing.T) {
	t.Parallel()
	for _, bound := range []struct{ letters, bytes int }{{20, 1 << 30}, {1 << 30, 100 << 10}} {
		db := openState(t, state.Config{Dir: t.TempDir()})
		d := openLetters(db)
		d.maxLetters, d.maxBytes = bound.letters, bound.bytes
		event, err := json.Marshal(map[string]any{"v": 1, "filler": bytes.Repeat([]byte("x"), 3<<10)})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Add(journal.Pushes, "records2", 1, "no", nil); err != nil {
			t.Fatal(err)
		}
		const n = 200
		for seq := uint64(1); seq <= n; seq++ {
			if err := d.Add(journal.Pushes, "records", 2*seq, "no", event); err != nil {
				t.Fatal(err)
			}
		}
		for _, d := range []*Store{d, openLetters(db)} {
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
				if _, ok, err := d.Find(Box{Sink: "records", Stream: journal.Pushes}, seq); ok != want || err != nil {
					t.Errorf("Find(%d) = %v, %v", seq, ok, err)
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
	d := openLetters(db)
	if err := d.Dropped(journal.Pushes, "records", 1, 2, entries(t, 1, event.OpPush, event.OpPush)); err != nil {
		t.Fatal(err)
	}
	disk.free = 1000
	for first := uint64(3); first < 9; first += 2 {
		if err := d.Dropped(journal.Pushes, "records", first, first+1, entries(t, first, event.OpPush, event.OpPush)); err != nil {
			t.Fatal(err)
		}
	}
	check := func(d *Store) {
		t.Helper()
		all, err := allLetters(d)
		if err != nil || len(all) != 3 || all[2].First != 3 || all[2].Last != 8 || all[2].Sink != "records" {
			t.Errorf("letters %+v, %v", all, err)
		}
		if n, err := letterCounts(d); err != nil || n["records"] != 8 {
			t.Errorf("letterCounts = %v, %v; want 8", n, err)
		}
		for seq, want := range map[uint64]bool{1: true, 5: true, 8: true, 9: false} {
			if _, ok, err := d.Find(Box{Sink: "records", Stream: journal.Pushes}, seq); ok != want || err != nil {
				t.Errorf("Find(%d) = %v, %v", seq, ok, err)
			}
		}
	}
	check(d)
	disk.free = 1 << 30
	check(d)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	check(openLetters(openState(t, state.Config{Dir: dir})))
}

// Looking for the letter of an event does not read the letter of another.
func TestFindReadsOneLetter(t *testing.T) {
	t.Parallel()
	d := openLetters(openState(t, state.Config{Dir: t.TempDir()}))
	event := []byte(`{"repository":"oss/app","operation":"push","x":"` + strings.Repeat(`,\"event\":`, 1<<18) + `"}`)
	if err := d.Add(journal.Pushes, "records", 7, `a reason with ,"event": in it`, event); err != nil {
		t.Fatal(err)
	}
	l, ok, err := d.Find(Box{Sink: "records", Stream: journal.Pushes}, 7)
	if !ok || err != nil || l.Reason != `a reason with ,"event": in it` || l.Repository != "oss/app" || l.Stream != journal.Pushes.String() || l.Event != nil {
		t.Errorf("%+.200v, %v, %v", l, ok, err)
	}
	if l, ok, err := d.Find(Box{Sink: "records", Stream: journal.Pushes}, 8); ok || err != nil {
		t.Errorf("of another event: %+.200v, %v", l, err)
	}
	begun := time.Now()
	if !json.Valid(event) {
		t.Fatal("the event is no JSON")
	}
	whole := time.Since(begun)
	begun = time.Now()
	for seq := uint64(8); seq < 18; seq++ {
		d.Find(Box{Sink: "records", Stream: journal.Pushes}, seq)
	}
	if took := time.Since(begun); took > whole {
		t.Errorf("ten lookups of other events take %s, parsing the letter once takes %s", took, whole)
	}
}
