package rediscounts

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/notifier/classify"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/rediscounts/redistest"
)

func row(class counts.Class, n uint64) counts.Row {
	var r counts.Row
	r.Counts[class.Index()] = n
	return r
}

// change sets the row of a registry id.
func (d *DB) change(id string, of counts.ID, r counts.Row) Change {
	return Change{d.Keys.Field(id, of, r.Position), r.Text(of.Kind)}
}

func TestWrite(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client()
	d := New(client, "")
	first, second := Record{Owner: "run", Call: "1"}, Record{Owner: "run", Call: "2"}
	day := counts.OfDay("x", 20_000)
	w, err := d.Write(t.Context(), "a", "", first, []Change{
		d.change("a", counts.OfRepository("x"), row(counts.Pull, 3)), d.change("a", day, row(counts.Pull, 3)),
	})
	if err != nil || time.Since(w.Clock).Abs() > time.Hour || len(w.Damaged) != 0 {
		t.Fatalf("Write = %+v, %v", w, err)
	}
	fields := []Field{d.Keys.Field("a", counts.OfRepository("x"), 0), d.Keys.Field("a", day, 0), d.Keys.Field("a", counts.OfTag("x", "v1"), 0)}
	check := func(when string, want ...string) {
		t.Helper()
		if got, err := d.Values(t.Context(), fields); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: values %q, %v; want %q", when, got, err, want)
		}
	}
	check("written", "p3", "p3", "")

	more := []Change{d.change("a", counts.OfRepository("x"), row(counts.Pull, 9)), {Field: fields[1]}}
	if _, err := d.Write(t.Context(), "a", "", second, more); !errors.Is(err, ErrChanged) {
		t.Errorf("Write with another record = %v, want ErrChanged", err)
	}
	check("after ErrChanged", "p3", "p3", "")
	if _, err := d.Write(t.Context(), "a", first.Encode(), second, more); err != nil {
		t.Error(err)
	}
	check("changed and deleted", "p9", "", "")
	if records, err := d.Records(t.Context()); err != nil || !maps.Equal(records, map[string]string{"a": second.Encode()}) {
		t.Errorf("records %q, %v; want the second one", records, err)
	}
}

// TestDamagedKeys has keys that are not hashes. The others are written.
func TestDamagedKeys(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client()
	d := New(client, "")
	days, totals := d.Keys.Days("a", "x"), d.Keys.Totals("a", "x")
	client.Set(t.Context(), days, "text", 0)
	w, err := d.Write(t.Context(), "a", "", Record{Call: "1"}, []Change{
		d.change("a", counts.OfDay("x", 20_000), row(counts.Pull, 1)), d.change("a", counts.OfRepository("x"), row(counts.Pull, 1)),
	})
	if err != nil || !slices.Equal(w.Damaged, []string{days}) {
		t.Errorf("Write = %+v, %v; want %s as damaged", w, err, days)
	}
	if got, err := d.Values(t.Context(), []Field{{days, "20000"}, {totals, "x"}}); err != nil || !slices.Equal(got, []string{WrongType, "p1"}) {
		t.Errorf("values %q, %v; want the wrong type and the totals", got, err)
	}
	if got, err := d.Lengths(t.Context(), []string{days, totals, "none"}); err != nil || !slices.Equal(got, []int64{-1, 1, 0}) {
		t.Errorf("lengths %d, %v; want -1, 1 and 0", got, err)
	}
	client.Set(t.Context(), d.Keys.IDs(), "text", 0)
	var damaged *DamagedError
	if _, err := d.Records(t.Context()); !errors.As(err, &damaged) || damaged.Key != d.Keys.IDs() {
		t.Errorf("Records = %v, want a DamagedError", err)
	}
}

func TestClaim(t *testing.T) {
	t.Parallel()
	d := New(redistest.Start(t).Client(), "")
	claim := func(id, expected string, next Record, runs ...Run) []string {
		t.Helper()
		owners, err := d.Claim(t.Context(), id, expected, next, runs)
		if err != nil {
			t.Fatal(err)
		}
		return owners
	}
	first := Record{Owner: "r1", Call: "1"}
	if got := claim("a", "", first, Run{ID: "r1"}, Run{ID: "r2"}); !slices.Equal(got, []string{"a", "a"}) {
		t.Errorf("owners %q, want a of both", got)
	}
	if got := claim("b", "", Record{Owner: "r3"}, Run{ID: "r1"}, Run{ID: "r2", Force: true}, Run{ID: "r3"}); !slices.Equal(got, []string{"a", "b", "b"}) {
		t.Errorf("owners %q, want a, b and b", got)
	}
	if _, err := d.Claim(t.Context(), "a", "", Record{Owner: "r4"}, nil); !errors.Is(err, ErrChanged) {
		t.Errorf("Claim with another record = %v, want ErrChanged", err)
	}
	claim("a", first.Encode(), Record{Owner: "r4"})
}

func TestStream(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client()
	d := New(client, "")
	var entries []classify.IndexEntry
	for i := range classify.ManifestKey(keysInEntry + 10) {
		entries = append(entries, classify.IndexEntry{Index: 7, Child: i})
	}
	entries = append(entries, classify.IndexEntry{Index: 8, Deleted: true}, classify.IndexEntry{Index: 9, Child: 1})
	tags := []TagChange{{"team/app", "v1", true}, {"team/app", "v2", false}}
	if rest, err := d.SendIndexEntries(t.Context(), "a", entries); err != nil || len(rest) != 0 {
		t.Fatalf("%d entries were not sent: %v", len(rest), err)
	}
	if rest, err := d.SendTagChanges(t.Context(), "a", tags); err != nil || len(rest) != 0 {
		t.Fatalf("%d changes were not sent: %v", len(rest), err)
	}
	// An earlier version does not say which index lists a child.
	client.XAdd(t.Context(), d.streamArgs("c", "keys", "\x00\x00\x00\x00\x00\x00\x00\x05"))
	entries = append(entries, classify.IndexEntry{Child: 5})

	var gotTags []TagChange
	var gotEntries []classify.IndexEntry
	visit := func(e StreamEntry) error {
		if time.Since(e.Time).Abs() > time.Hour {
			t.Errorf("an entry has the time %v", e.Time)
		}
		gotTags, gotEntries = append(gotTags, e.Tags...), append(gotEntries, e.IndexEntries...)
		return nil
	}
	end, err := d.Receive(t.Context(), "b", StreamStart, visit)
	if err != nil || !slices.Equal(gotTags, tags) || !slices.Equal(gotEntries, entries) {
		t.Errorf("received %v and %d index entries, %v; want %v and %d", gotTags, len(gotEntries), err, tags, len(entries))
	}
	none := func(e StreamEntry) error { t.Errorf("received %+v", e); return nil }
	if got, err := d.Receive(t.Context(), "b", end, none); err != nil || got != end {
		t.Errorf("Receive at the end = %q, %v; want %q", got, err, end)
	}
	gotEntries = nil
	if _, err := d.Receive(t.Context(), "a", StreamStart, visit); err != nil || len(gotEntries) != 1 {
		t.Errorf("the sender received %d index entries, %v; want that of the other one", len(gotEntries), err)
	}
	stop := errors.New("stop")
	if got, err := d.Receive(t.Context(), "b", StreamStart, func(StreamEntry) error { return stop }); !errors.Is(err, stop) || got != StreamStart {
		t.Errorf("Receive = %q, %v; want no progress", got, err)
	}
}

// TestTagChanges: lines that are not valid are not applied.
func TestTagChanges(t *testing.T) {
	t.Parallel()
	for _, want := range []TagChange{{"team/app", "v1", true}, {"x", "latest", false}} {
		if got, ok := parseTagChange(want.line()); !ok || got != want {
			t.Errorf("parseTagChange(%q) = %v, %v", want.line(), got, ok)
		}
	}
	for _, bad := range []string{"", "-", "-x", "-\x00v1", "-x\x00", "?x\x00v1", "x\x00v1"} {
		if got, ok := parseTagChange(bad); ok {
			t.Errorf("parseTagChange(%q) = %v, want an error", bad, got)
		}
	}
}

func TestParseRecord(t *testing.T) {
	t.Parallel()
	if r := ParseRecord(""); r != nil {
		t.Errorf("an empty value is %+v, want no record", r)
	}
	if r := ParseRecord("{"); r == nil || r.Owner != "" {
		t.Errorf("invalid JSON is %+v, want a record without an owner", r)
	}
	want := Record{Owner: "run", Call: "1", Seen: 1, Upto: Sequences{0: 5, 1: 9}}.Encode()
	if r := ParseRecord(want); r == nil || r.Encode() != want {
		t.Errorf("%s is parsed as %+v", want, r)
	}
}

func TestShardOf(t *testing.T) {
	t.Parallel()
	seen := map[int]int{}
	for i := range 6400 {
		seen[ShardOf(fmt.Sprintf("team/app-%d", i))]++
	}
	for i := range Shards {
		if seen[i] < 30 || seen[i] > 300 {
			t.Errorf("shard %d has %d of 6400 repositories", i, seen[i])
		}
	}
}

func TestValidateName(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "default", "a.b-c_9", strings.Repeat("a", 64)} {
		if err := ValidateName(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{" ", "a b", "a:b", "{a}", strings.Repeat("a", 65)} {
		if err := ValidateName(name); err == nil {
			t.Errorf("%q is accepted", name)
		}
	}
}

func TestPersistenceWarnings(t *testing.T) {
	t.Parallel()
	for info, want := range map[string]int{
		"maxmemory:0\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\n":    0,
		"maxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\naof_enabled:1\r\n":   0,
		"maxmemory:100\r\nmaxmemory_policy:allkeys-lru\r\naof_enabled:1\r\n": 1,
		"maxmemory:100\r\nmaxmemory_policy:allkeys-lru\r\naof_enabled:0\r\n": 2,
	} {
		if got := persistenceWarnings(info); len(got) != want {
			t.Errorf("persistenceWarnings(%q) = %q, want %d", info, got, want)
		}
	}
}

// TestKeys has the keys of an installation. Earlier and later versions of the program share
// a Redis, so they must not change.
func TestKeys(t *testing.T) {
	t.Parallel()
	k := NewKeys("")
	for want, got := range map[string]string{
		"{tidings:default}:ids":            k.IDs(),
		"{tidings:default}:runs":           k.Runs(),
		"{tidings:default}:children":       k.Stream(),
		"{tidings:other}:ids":              NewKeys("other").IDs(),
		"{tidings:default}:a:n:19":         k.Field("a", counts.OfRepository("team/app"), 0).Key,
		"{tidings:default}:a:d:team/app":   k.Field("a", counts.OfDay("team/app", 1), 0).Key,
		"{tidings:default}:a:t:team/app:0": k.Field("a", counts.OfTag("team/app", "v1"), 100).Key,
		"{tidings:default}:a:t:team/app:1": k.Field("a", counts.OfTag("team/app", "v2"), 101).Key,
	} {
		if got != want {
			t.Errorf("key %q, want %q", got, want)
		}
	}
}
