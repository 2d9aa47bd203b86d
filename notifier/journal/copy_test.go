package journal_test

import (
	"context"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/tidings-dev/tidings/notifier/journal"
)

// A copy of a journal in use has its cursors of the beginning and all events that a reader
// had not passed then, although segments are deleted and appended meanwhile.
func TestCopy(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "journal")
	j, err := journal.Open(journal.Config{Dir: dir, SegmentSize: 1000})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	for _, s := range []journal.Stream{journal.Pushes, journal.Pulls} {
		if err := j.Register(s, "r"); err != nil {
			t.Fatal(err)
		}
	}
	intent, err := j.Begin(ctx, 1, []byte("open"))
	if err != nil {
		t.Fatal(err)
	}
	append100 := func() {
		for range 100 {
			for _, s := range []journal.Stream{journal.Pushes, journal.Pulls} {
				if _, err := j.Append(ctx, s, 2, make([]byte, 100)); err != nil {
					t.Error(err)
				}
			}
		}
	}
	// read makes events durable, which those of pulls are not at once.
	read := func(s journal.Stream, seq uint64) {
		if entries, err := j.Read(s, seq-1, 1, 1); err != nil || len(entries) != 1 {
			t.Errorf("read event %d of %s: %d events, %v", seq, s, len(entries), err)
		}
	}
	append100()
	read(journal.Pulls, 30)
	if err := j.SetCursor(journal.Pushes, "r", 20); err != nil {
		t.Fatal(err)
	}
	if err := j.SetCursorLazily(journal.Pulls, "r", 30); err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	copied := filepath.Join(t.TempDir(), "copy")
	err = j.Copy(copied, func() error {
		append100()
		for _, s := range []journal.Stream{journal.Pushes, journal.Pulls} {
			read(s, 150)
			if err := j.SetCursor(s, "r", 150); err != nil { // would delete events
				return err
			}
		}
		writers.Go(func() {
			for running.Err() == nil {
				if _, err := j.Append(ctx, journal.Pushes, 3, make([]byte, 100)); err != nil {
					t.Error(err)
				}
			}
		})
		return nil
	})
	stop()
	writers.Wait()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []journal.Stream{journal.Pushes, journal.Pulls} {
		if first := j.Status(s).First; first < 100 {
			t.Errorf("%s begin with %d: what was put off was not deleted", s, first)
		}
	}
	c, err := journal.Open(journal.Config{Dir: copied})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.ID() != j.ID() {
		t.Errorf("the copy has the id %s, want %s", c.ID(), j.ID())
	}
	if open := c.Unresolved(); !slices.ContainsFunc(open, func(o journal.OpenIntent) bool { return o.Intent == intent }) {
		t.Errorf("the copy has the open intents %v, want %v", open, intent)
	}
	for s, cursor := range map[journal.Stream]uint64{journal.Pushes: 20, journal.Pulls: 30} {
		if got := c.Cursor(s, "r"); got != cursor {
			t.Errorf("%s: the cursor of the copy is %d, want %d", s, got, cursor)
		}
		next := cursor
		for {
			events, err := c.Read(s, next, 1000, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			if len(events) == 0 {
				break
			}
			for _, e := range events {
				if e.Seq != next+1 {
					t.Fatalf("%s: event %d follows %d", s, e.Seq, next)
				}
				next = e.Seq
			}
		}
		if next < 200 {
			t.Errorf("%s: the copy ends with %d", s, next)
		}
	}
}
