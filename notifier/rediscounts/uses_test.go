package rediscounts

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/notifier/lastuse"
	"github.com/tidings-dev/tidings/notifier/rediscounts/redistest"
)

// TestUsesKnown has a registry a, and a record and a mark of another one.
func TestUsesKnown(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	begun, since := now.Add(-time.Hour), now.Add(-24*time.Hour)
	epoch := NewUsesEpoch(begun)
	current := &UsesMark{Epoch: epoch, Seq: 1, Since: since, Upto: now}
	silent := &UsesMark{Epoch: epoch, Seq: 1, Since: since, Upto: now.Add(-2 * time.Minute)}
	ahead := &UsesMark{Epoch: epoch, Seq: 1, Since: since, Upto: now.Add(2 * time.Minute)}
	stopped := &UsesMark{Epoch: epoch, Seq: 1, Since: since, Upto: now.Add(-2 * time.Minute), Stopped: true}
	lost := &UsesMark{Epoch: "earlier 1", Seq: 1, Since: since, Upto: now}
	running := &Record{Owner: "run", Instance: "b", Host: "host-b", Seen: now.Unix()}
	for name, test := range map[string]struct {
		mark    *UsesMark
		record  *Record
		since   time.Time
		missing string
	}{
		"current": {current, running, since, ""},
		"silent": {silent, running, since, "the registry b (host-b) has not sent its uses since 2026-03-04T11:58:00Z; start it and let it reach Redis or, if it no longer exists, " +
			"run `tidings redis forget <config> b`, after which uses are known from then on only, or with --uses-sent if it has answered none since"},
		"its clock is ahead":       {ahead, running, since, "the clock of the registry b (host-b) is ahead by 2m0s; start it"},
		"stopped":                  {stopped, running, since, ""},
		"not back after a loss":    {lost, running, begun, ""},
		"lost, with its record":    {nil, nil, begun, ""},
		"does not share":           {nil, running, begun, "the registry b (host-b) has not sent its uses, and was last seen at 2026-03-04T12:00:00Z; start it"},
		"stopped, does not share":  {nil, &Record{Owner: "run"}, begun, ""},
		"forgotten":                {silent, &Record{Removed: true}, since, ""},
		"kept":                     {silent, &Record{Kept: true}, since, ""},
		"continues under a new id": {silent, &Record{Owner: "run", Instance: "a", Seen: now.Unix() - 100}, since, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			state := UsesState{epoch, map[string]UsesMark{"a": {Epoch: epoch, Since: now}}}
			records := map[string]string{"a": Record{Owner: "r", Instance: "a", Seen: now.Unix()}.Encode()}
			if test.mark != nil {
				state.Marks["b"] = *test.mark
			}
			if test.record != nil {
				records["b"] = test.record.Encode()
			}
			known := state.Known("a", []string{"a", "b"}, records, now)
			if !known.Since.Equal(test.since) || (test.missing == "") != (known.Missing == "") || !strings.Contains(known.Missing, test.missing) {
				t.Errorf("known since %v without %q, want %v and %q", known.Since, known.Missing, test.since, test.missing)
			}
		})
	}
	if known := (UsesState{epoch, nil}).Known("a", nil, nil, now); known != (lastuse.Known{}) {
		t.Errorf("without other registries: %+v", known)
	}
}

// TestUsesOfSeveral has more registries that are missing than are named.
func TestUsesOfSeveral(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	epoch := NewUsesEpoch(now)
	records := map[string]string{}
	for _, id := range []string{"b", "c", "d", "e", "f", "g", "h"} {
		records[id] = Record{Owner: "run", Instance: id, Seen: now.Unix()}.Encode()
	}
	got := UsesState{epoch, nil}.Known("a", nil, records, now).Missing
	if !strings.HasPrefix(got, "the registry b (unknown host) has not sent its uses, and was last seen at ") || strings.Contains(got, "registry g") ||
		!strings.Contains(got, "; and 2 more; start them and let them reach Redis or, if one no longer exists, run `tidings redis forget <config> <id>`, after which") {
		t.Error(got)
	}
}

// TestWriteUses: the later times win, and a delete only ends what was not used lately.
func TestWriteUses(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client()
	d := New(client, "")
	epoch := NewUsesEpoch(time.Now())
	id := lastuse.IDOf("x", lastuse.OfTag("v1"))
	write := func(c lastuse.Change) {
		t.Helper()
		c.ID = id
		if err := d.WriteUses(t.Context(), UsesWrite{Expected: epoch, Changes: []lastuse.Change{c}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.WriteUses(t.Context(), UsesWrite{Next: epoch}); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		change lastuse.Change
		want   lastuse.Use
	}{
		{lastuse.Change{Deleted: 500}, lastuse.Use{}},
		{lastuse.Change{Use: lastuse.Use{Pushed: 100, Used: 90}}, lastuse.Use{Pushed: 100, Used: 90}},
		{lastuse.Change{Use: lastuse.Use{Pushed: 99, Used: 101}}, lastuse.Use{Pushed: 100, Used: 101}},
		{lastuse.Change{Use: lastuse.Use{Pushed: 1, Used: 1}}, lastuse.Use{Pushed: 100, Used: 101}},
		{lastuse.Change{Deleted: 102}, lastuse.Use{Pushed: 100, Used: 101}},
		{lastuse.Change{Deleted: 103}, lastuse.Use{}},
	} {
		write(step.change)
		if got, err := d.Uses(t.Context(), []lastuse.ID{id}); err != nil || !slices.Equal(got, []lastuse.Use{step.want}) {
			t.Errorf("after %+v: %v, %v; want %v", step.change, got, err, step.want)
		}
	}
	if err := d.WriteUses(t.Context(), UsesWrite{Expected: "another", Next: "x"}); !errors.Is(err, ErrChanged) {
		t.Errorf("a write in another epoch: %v, want ErrChanged", err)
	}
	if err := client.Set(t.Context(), d.Keys.usesOf(id), "text", 0).Err(); err != nil {
		t.Fatal(err)
	}
	var damaged *DamagedError
	err := d.WriteUses(t.Context(), UsesWrite{Expected: epoch, Changes: []lastuse.Change{{ID: id, Use: lastuse.Use{Used: 1}}}})
	if !errors.As(err, &damaged) || damaged.Key != d.Keys.usesOf(id) {
		t.Errorf("a write to a key of another type: %v, want a DamagedError", err)
	}
}

// After Forget of a registry that can have uses which it has not sent, uses are known from then
// on only, unless the operator knows that there are none.
func TestForgetUses(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	since, upto := now.Add(-24*time.Hour), now.Add(-2*time.Second)
	epoch := NewUsesEpoch(since)
	mark := func(stopped bool) *UsesMark {
		return &UsesMark{Epoch: epoch, Seq: 7, Since: since, Upto: upto, Stopped: stopped}
	}
	running := Record{Owner: "run", Call: "1", Instance: "b", Seen: upto.Unix()}
	server := redistest.Start(t)
	for name, test := range map[string]struct {
		mark     *UsesMark
		record   Record
		forgot   time.Time
		lost     bool
		wantUpTo time.Time
		want     time.Time // uses are known since
	}{
		"killed":                    {mark(false), running, now, true, upto, now},
		"killed, and all are sent":  {mark(false), running, time.Time{}, false, time.Time{}, since},
		"stopped":                   {mark(true), Record{Call: "1", Instance: "b"}, now, false, time.Time{}, since},
		"does not share":            {nil, running, now, true, time.Time{}, now},
		"forgotten already":         {mark(false), Record{Call: "1", Removed: true}, now, false, time.Time{}, since},
		"lost with Redis and alone": {&UsesMark{Epoch: "earlier 1", Since: since, Upto: upto}, running, now, true, upto, now},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := New(server.Client(), strings.NewReplacer(" ", "-", ",", "").Replace(name))
			ctx := t.Context()
			if err := d.WriteUses(ctx, UsesWrite{ID: "b", Next: epoch, Mark: test.mark}); err != nil {
				t.Fatal(err)
			}
			if err := d.client.HSet(ctx, d.Keys.IDs(), "b", test.record.Encode()).Err(); err != nil {
				t.Fatal(err)
			}
			for range 2 { // a call that is repeated changes nothing
				k, err := d.Forget(ctx, "b", false, 0, test.forgot)
				if err != nil || k.LostUses != test.lost || !k.UsesUpTo.Equal(test.wantUpTo) {
					t.Errorf("uses are lost: %v, after %v (%v); want %v, %v", k.LostUses, k.UsesUpTo, err, test.lost, test.wantUpTo)
				}
				test.lost, test.wantUpTo = false, time.Time{}
			}
			state, err := d.ReadUsesState(ctx)
			if err != nil {
				t.Fatal(err)
			}
			records, err := d.Records(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if known := state.Known("a", nil, records, now); !known.Since.Equal(test.want) || known.Missing != "" {
				t.Errorf("uses are known since %v without %q, want %v", known.Since, known.Missing, test.want)
			}
		})
	}
}
