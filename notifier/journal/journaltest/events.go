package journaltest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/race"
	"github.com/tidings-dev/tidings/notifier/journal"
)

func eventOrder(t *testing.T, f *fixture) {
	race.Skip(t, "it writes large events one after another")
	const events = 24
	sizes := []int{0, 1, 5, 100, 1999, 2000, 70_000, journal.MaxPayload}
	for _, s := range []journal.Stream{journal.Pushes, journal.Pulls} {
		for i := range events {
			payload := bytes.Repeat([]byte{byte(i)}, sizes[i%len(sizes)])
			seq, err := f.j.Append(ctx, s, uint64(1000+i), payload)
			if err != nil || seq != uint64(i+1) {
				t.Fatalf("Append %d = %d, %v", i, seq, err)
			}
			if i%7 == 0 {
				f.reopen()
			}
		}
		f.reopen()
		entries := f.read(s, 0)
		if len(entries) != events {
			t.Fatalf("%d events, want %d", len(entries), events)
		}
		for i, e := range entries {
			want := bytes.Repeat([]byte{byte(i)}, sizes[i%len(sizes)])
			if e.Seq != uint64(i+1) || e.Order != uint64(1000+i) || !bytes.Equal(e.Payload, want) {
				t.Fatalf("event %d has number %d, order number %d, %d bytes", i+1, e.Seq, e.Order, len(e.Payload))
			}
		}
		if got := f.j.LastOrder(); got != 1000+events-1 {
			t.Errorf("LastOrder = %d, want %d", got, 1000+events-1)
		}
	}
}

func separateStreams(t *testing.T, f *fixture) {
	f.append(journal.Pushes, 3)
	f.append(journal.Pulls, 5)
	f.reopen()
	f.wantSeqs(journal.Pushes, 0, 1, 3)
	f.wantSeqs(journal.Pulls, 0, 1, 5)
	if st := f.j.Status(journal.Pulls); st.First != 1 || st.Last != 5 || st.Bytes == 0 || st.Segments != 1 {
		t.Errorf("Status = %+v", st)
	}
}

func boundedReads(t *testing.T, f *fixture) {
	last := f.append(journal.Pulls, 300)
	for _, reopen := range []bool{false, true} {
		if reopen {
			f.reopen()
		}
		for after := uint64(0); after <= last+1; after += 13 {
			want := min(7, int(max(int64(last)-int64(after), 0)))
			entries := f.readSome(journal.Pulls, after, 7)
			if len(entries) != want {
				t.Fatalf("Read after %d: %d events, want %d", after, len(entries), want)
			}
			if want > 0 && entries[0].Seq != after+1 {
				t.Fatalf("Read after %d starts with event %d", after, entries[0].Seq)
			}
		}
		// The payloads have 5 bytes each; the event that reaches the bound is included.
		entries, err := f.j.Read(journal.Pulls, 0, 100, 12)
		if err != nil || len(entries) != 3 {
			t.Errorf("Read of 12 bytes: %d events, %v", len(entries), err)
		}
		// More readers than the journal keeps open files for, each in order.
		cursors := make([]uint64, 20)
		for range 10 {
			for i := range cursors {
				if _, ok := f.j.OrderAfter(journal.Pulls, cursors[i]); !ok {
					t.Fatalf("OrderAfter found no event after %d", cursors[i])
				}
				entries := f.readSome(journal.Pulls, cursors[i], 10+i%3)
				if len(entries) != 10+i%3 || entries[0].Seq != cursors[i]+1 {
					t.Fatalf("reader %d after %d: %d events", i, cursors[i], len(entries))
				}
				cursors[i] = entries[len(entries)-1].Seq
			}
		}
	}
	if _, ok := f.j.OrderAfter(journal.Pulls, last); ok {
		t.Error("OrderAfter found an event after the last")
	}
	if order, ok := f.j.OrderAfter(journal.Pulls, 100); !ok || order != 1 {
		t.Errorf("OrderAfter = %d, %v", order, ok)
	}
}

func waits(t *testing.T, f *fixture) {
	short, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	if err := f.j.Wait(short, journal.Pulls, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait: %v, want the context's error", err)
	}
	woken := make(chan error)
	go func() { woken <- f.j.Wait(ctx, journal.Pulls, 1) }()
	f.append(journal.Pulls, 2)
	if err := <-woken; err != nil {
		t.Errorf("Wait: %v", err)
	}
	j := f.j
	go func() { woken <- j.Wait(ctx, journal.Pulls, 2) }()
	f.reopen()
	if err := <-woken; err != nil && !errors.Is(err, journal.ErrClosed) {
		t.Errorf("Wait: %v, want ErrClosed", err)
	}
	if err := f.j.Wait(ctx, journal.Pulls, 1); err != nil {
		t.Errorf("Wait for an existing event: %v", err)
	}
}

func concurrency(t *testing.T, f *fixture) {
	const writers, each = 8, 60
	if err := f.j.Register(journal.Pushes, "reader"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	numbers := map[uint64]string{}
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				name := fmt.Sprint(w, " ", i)
				in, err := f.j.Begin(ctx, 1, nil)
				if err != nil {
					t.Error(err)
					return
				}
				if i%5 == 0 {
					if err := f.j.Abandon(in); err != nil {
						t.Error(err)
					}
					continue
				}
				seq, err := f.j.Complete(ctx, in, 1, []byte(name))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				numbers[seq] = name
				mu.Unlock()
			}
		})
	}
	const want = writers * each * 4 / 5
	got := map[uint64]string{}
	for at := uint64(0); at < want && !t.Failed(); {
		if err := f.j.Wait(ctx, journal.Pushes, at); err != nil {
			t.Fatal(err)
		}
		entries, err := f.j.Read(journal.Pushes, at, 9, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Seq != at+1 {
				t.Fatalf("event %d follows %d", e.Seq, at)
			}
			at = e.Seq
			got[at] = string(e.Payload)
		}
		if err := f.j.SetCursor(journal.Pushes, "reader", at); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	for seq, name := range numbers {
		if got[seq] != name {
			t.Fatalf("event %d was read as %q, want %q", seq, got[seq], name)
		}
	}
	if len(got) != want || len(numbers) != want {
		t.Errorf("%d events written, %d read, want %d", len(numbers), len(got), want)
	}
	f.reopen()
	if got := f.j.Unresolved(); len(got) != 0 {
		t.Errorf("%d intents are open", len(got))
	}
}

func arguments(t *testing.T, f *fixture) {
	large := make([]byte, journal.MaxPayload+1)
	if _, err := f.j.Append(ctx, journal.Pulls, 1, large); !errors.Is(err, journal.ErrTooLarge) {
		t.Errorf("Append: %v, want ErrTooLarge", err)
	}
	if _, err := f.j.Begin(ctx, 1, large[:journal.MaxIntent+1]); !errors.Is(err, journal.ErrTooLarge) {
		t.Errorf("Begin: %v, want ErrTooLarge", err)
	}
	in, err := f.j.Begin(ctx, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.j.Complete(ctx, in, 1, large); !errors.Is(err, journal.ErrTooLarge) {
		t.Errorf("Complete: %v, want ErrTooLarge", err)
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := f.j.Complete(canceled, in, 1, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Complete: %v, want the context's error", err)
	}
	if seq, err := f.j.Complete(ctx, in, 1, nil); seq != 1 || err != nil {
		t.Errorf("Complete after failed calls = %d, %v", seq, err)
	}
	for range 2 {
		if err := f.j.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	_, err1 := f.j.Append(ctx, journal.Pulls, 1, nil)
	_, err2 := f.j.Begin(ctx, 1, nil)
	_, err3 := f.j.Complete(ctx, in, 1, nil)
	_, err4 := f.j.Read(journal.Pulls, 0, 1, 1)
	for i, err := range []error{err1, err2, err3, err4, f.j.Abandon(in), f.j.Wait(ctx, journal.Pulls, 0),
		f.j.SetCursor(journal.Pulls, "reader", 0), f.j.Register(journal.Pulls, "reader"),
		f.j.SetCursorLazily(journal.Pulls, "reader", 0)} {
		if !errors.Is(err, journal.ErrClosed) {
			t.Errorf("call %d after Close: %v, want ErrClosed", i, err)
		}
	}
}
