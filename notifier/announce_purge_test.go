package notifier

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/pushrow"
	"github.com/tidings-dev/tidings/notifier/reconcile"
	"github.com/tidings-dev/tidings/notifier/records"
)

// purge makes all steps of a purge, and returns how many versions it drops. The records sink
// does not run; it counts as one that has processed all events.
func (r *rig) purge(repository string) (waiting int) {
	r.t.Helper()
	if err := r.journal.SetCursor(journal.Pushes, records.Name, r.journal.Status(journal.Pushes).Last); err != nil {
		r.t.Fatal(err)
	}
	for cursor, first := "", true; first || cursor != ""; first = false {
		found, err := r.stores.Purge(r.t.Context(), repository, cursor, true)
		if err != nil {
			r.t.Fatal(err)
		}
		waiting += found.Waiting
		cursor = found.Cursor
	}
	return waiting
}

// What was pushed to a repository before a purge is not announced after it, wherever it is;
// other repositories are not affected.
func TestPurgeDropsPending(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		perDay  int
		prepare func(r *rig, pass func(time.Duration)) // leaves v2 of oss/app and oss/other to be announced
		waiting int
		want    []string // posts, a day later
	}{
		"window": {50, func(r *rig, _ func(time.Duration)) {
			r.push(image("a", 1).as("oss/app", "v2"))
			r.push(image("b", 1).as("oss/other", "v2"))
		}, 0, []string{"oss/other:v2 was pushed"}},
		"cooldown": {50, func(r *rig, pass func(time.Duration)) {
			r.push(image("1", 1).as("oss/app", "v1"))
			r.push(image("1", 1).as("oss/other", "v1"))
			pass(time.Minute)
			r.push(image("a", 1).as("oss/app", "v2"))
			r.push(image("b", 1).as("oss/other", "v2"))
			pass(time.Minute)
		}, 1, []string{"oss/other:v1 was pushed", "oss/other:v2 was pushed"}},
		"summary": {1, func(r *rig, pass func(time.Duration)) {
			r.push(image("1", 1).as("oss/first", "v1"))
			pass(time.Minute)
			r.push(image("a", 1).as("oss/app", "v2"))
			r.push(image("b", 1).as("oss/other", "v2"))
			pass(time.Minute)
		}, 1, []string{"oss/first:v1 was pushed", "1 image was pushed"}},
		"outbox": {50, func(r *rig, pass func(time.Duration)) {
			r.push(image("a", 1).as("oss/app", "v2"))
			r.push(image("b", 1).as("oss/other", "v2"))
			r.account.down.Store(true)
			pass(0)
		}, 0, []string{"oss/other:v2 was pushed"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := policy()
			cfg.PerDay = test.perDay
			r, m := newManualRig(t, cfg)
			pass := func(d time.Duration) {
				m.Pass(d)
				r.mustStep()
			}
			failing := func(time.Duration) {
				m.Pass(time.Minute)
				if err := r.announceStep(); err == nil {
					t.Fatal("the account can be written")
				}
			}
			if name == "outbox" {
				test.prepare(r, failing)
			} else {
				pass(0)
				test.prepare(r, pass)
			}
			if got := r.purge("oss/app"); got != test.waiting {
				t.Errorf("%d versions are waiting, want %d", got, test.waiting)
			}
			r.account.down.Store(false)
			r.reopenCopy(cfg)
			pass(time.Minute)
			pass(20 * time.Minute)
			pass(24 * time.Hour)
			got := r.texts()
			for i := range got {
				if strings.HasPrefix(got[i], "1 image was pushed") {
					got[i] = "1 image was pushed"
				}
			}
			slices.Sort(got)
			slices.Sort(test.want)
			if !slices.Equal(got, test.want) {
				t.Errorf("posts %q, want %q", got, test.want)
			}
			r.push(image("a", 1).as("oss/app", "v2"))
			pass(time.Minute)
			pass(24 * time.Hour)
			if got := len(r.texts()); got != len(test.want)+1 {
				t.Errorf("%d posts after the next push, want %d: %q", got, len(test.want)+1, r.texts())
			}
		})
	}
}

// A push before a purge that the records sink has not processed yet gets no records, and the
// purge waits for the batch that the sink is writing. The first push after it publishes the
// repository again.
func TestPurgeBeforeRecords(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.push(image("other", 1).as("oss/other", "v1"))
	r.drain()
	r.account.down.Store(true)
	r.push(image("sent", 2).as("oss/app", "v1"))
	r.until("the batch is in the outbox", func() bool {
		batched, err := records.LastBatched(r.state)
		return err == nil && batched == 2
	})
	r.push(image("pending", 2).as("oss/app", "v2"))
	cursor := ""
	step := func() error {
		found, err := r.stores.Purge(t.Context(), "oss/app", cursor, true)
		if err == nil {
			cursor = found.Cursor
		}
		return err
	}
	if err := step(); err != nil {
		t.Fatal(err)
	}
	if err := step(); !errors.Is(err, reconcile.ErrBusy) {
		t.Errorf("the purge does not wait for the records sink: %v", err)
	}
	r.account.down.Store(false)
	r.drain()
	if got := len(r.records()); got != 1+2 {
		t.Errorf("%d records while the purge waits, want those of the batch and of another repository", got)
	}
	for cursor != "" {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	r.drain()
	r.consistent()
	if got := len(r.records()); got != 1 {
		t.Errorf("%d records after the purge, want those of another repository", got)
	}
	var result pushrow.Records
	if _, err := pushrow.Get(r.state, 3, pushrow.RecordsPart, &result); err != nil || result.Reason != "its repository was purged" {
		t.Errorf("the result of the pending push: %+v, %v", result, err)
	}
	r.push(image("late", 3).as("oss/app", "v3"))
	r.drain()
	if got := len(r.records()); got != 1+3 {
		t.Errorf("%d records after the next push, want 4", got)
	}
}
