package journaltest

import (
	"context"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/notifier/journal"
)

// An Opener opens the journal in cfg.Dir. Run closes what it opens.
type Opener func(journal.Config) (*journal.Journal, error)

// Run checks the documented behavior of a journal. Each check closes and reopens
// the journal.
func Run(t *testing.T, open Opener) {
	for _, c := range []struct {
		name  string
		check func(*testing.T, *fixture)
	}{
		{"events are numbered and kept in order", eventOrder},
		{"streams are numbered separately", separateStreams},
		{"reads are bounded and may start anywhere", boundedReads},
		{"Wait ends with an event, its context or Close", waits},
		{"concurrent appends and reads", concurrency},
		{"invalid arguments and calls after Close", arguments},
		{"an intent is open until it is completed or abandoned", intentStates},
		{"open intents are moved out of a deleted segment", movedIntents},
		{"many open intents are moved no more than necessary", manyOpenIntents},
		{"an intent that is left open can be completed by others", intentsLeftOpen},
		{"abandoned intents do not count toward the limit", abandonedIntents},
		{"the size of open intents is limited", openIntentLimit},
		{"segments are kept until all cursors have passed", retention},
		{"a reader may store its cursor elsewhere", lazyCursors},
		{"at the limit the oldest events are dropped", sizeLimit},
		{"id and clock id persist", identity},
		{"a journal behind a reader takes a new id", renewedID},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := &fixture{T: t, open: open, cfg: journal.Config{Dir: t.TempDir(), SegmentSize: 2000}}
			f.reopen()
			t.Cleanup(func() { f.j.Close() })
			c.check(t, f)
		})
	}
}

// A fixture is the journal of one check, in a folder of its own.
type fixture struct {
	*testing.T
	open Opener
	cfg  journal.Config
	j    *journal.Journal
}

func (f *fixture) reopen() {
	f.Helper()
	if f.j != nil {
		if err := f.j.Close(); err != nil {
			f.Fatalf("Close: %v", err)
		}
	}
	j, err := f.open(f.cfg)
	if err != nil {
		f.Fatalf("Open: %v", err)
	}
	f.j = j
}

var ctx = context.Background()

func (f *fixture) append(s journal.Stream, n int) (last uint64) {
	f.Helper()
	for range n {
		seq, err := f.j.Append(ctx, s, 1, []byte("event"))
		if err != nil {
			f.Fatalf("Append: %v", err)
		}
		last = seq
	}
	return last
}

func (f *fixture) begin(order uint64, payload string) journal.Intent {
	f.Helper()
	in, err := f.j.Begin(ctx, order, []byte(payload))
	if err != nil {
		f.Fatalf("Begin: %v", err)
	}
	return in
}

// read returns all events above after.
func (f *fixture) read(s journal.Stream, after uint64) []journal.Entry {
	f.Helper()
	return f.readSome(s, after, 1<<30)
}

// readSome returns n events above after, or as many as there are.
func (f *fixture) readSome(s journal.Stream, after uint64, n int) (all []journal.Entry) {
	f.Helper()
	for len(all) < n {
		entries, err := f.j.Read(s, after, n-len(all), 1<<30)
		if err != nil {
			f.Fatalf("Read: %v", err)
		}
		if len(entries) == 0 {
			break
		}
		all = append(all, entries...)
		after = entries[len(entries)-1].Seq
	}
	return all
}

// AwaitSize waits until s has at most the given number of segments and of bytes, since
// the journal deletes segments in the background. 0 means any number.
func AwaitSize(t testing.TB, j *journal.Journal, s journal.Stream, segments int, bytes int64) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		st := j.Status(s)
		if (segments == 0 || st.Segments <= segments) && (bytes == 0 || st.Bytes <= bytes) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("Status = %+v, want at most %d segments and %d bytes (0: any)", st, segments, bytes)
		}
	}
}

// wantSeqs checks that the events of s above after are those from first to last.
func (f *fixture) wantSeqs(s journal.Stream, after uint64, first, last uint64) {
	f.Helper()
	entries := f.read(s, after)
	if want := int(last + 1 - first); len(entries) != want {
		f.Fatalf("%d events of %s after %d, want %d to %d", len(entries), s, after, first, last)
	}
	for i, e := range entries {
		if e.Seq != first+uint64(i) {
			f.Fatalf("event %d of %s at index %d, want %d", e.Seq, s, i, first+uint64(i))
		}
	}
}
