// Package statetest is the conformance suite of state.Store.
package statetest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/notifier/state"
)

// Run tests a Store. open returns an empty one, and a function that closes and reopens
// it.
func Run(t *testing.T, open func(t *testing.T) (s state.Store, reopen func() state.Store)) {
	for name, test := range map[string]func(t *testing.T, s state.Store, reopen func() state.Store){
		"get": testGet, "scan": testScan, "stop": testStop, "order": testOrder, "batch get": testBatchGet, "reopen": testReopen,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, reopen := open(t)
			test(t, s, reopen)
		})
	}
}

func commit(t *testing.T, s state.Store, change func(b *state.Batch)) {
	t.Helper()
	var b state.Batch
	change(&b)
	if err := s.Commit(&b, state.Sync); err != nil {
		t.Fatal(err)
	}
}

// fill sets each key to its own name.
func fill(t *testing.T, s state.Store, keys ...string) {
	t.Helper()
	commit(t, s, func(b *state.Batch) {
		for _, key := range keys {
			b.Set([]byte(key), []byte(key))
		}
	})
}

// keys returns the keys of a range, separated by spaces. Their values must be equal to
// them.
func keys(t *testing.T, s state.Store, r state.Range) string {
	t.Helper()
	var all []string
	err := s.Scan(r, func(key, value []byte) error {
		if !bytes.Equal(key, value) {
			t.Errorf("%q = %q", key, value)
		}
		all = append(all, string(key))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, " ")
}

func testGet(t *testing.T, s state.Store, _ func() state.Store) {
	if _, err := s.Get([]byte("a")); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("Get of a missing key: %v", err)
	}
	fill(t, s, "a")
	value, err := s.Get([]byte("a"))
	if err != nil || string(value) != "a" {
		t.Fatalf("Get = %q, %v", value, err)
	}
	value[0] = 'x' // it is a copy
	if value, err := s.Get([]byte("a")); err != nil || string(value) != "a" {
		t.Errorf("Get after its result was changed = %q, %v", value, err)
	}
	if err := state.Set(s, []byte("empty"), nil, state.NoSync); err != nil {
		t.Fatal(err)
	}
	if has, err := state.Has(s, []byte("empty")); !has || err != nil {
		t.Errorf("Has of an empty value = %v, %v", has, err)
	}
	if err := state.Delete(s, []byte("empty"), state.NoSync); err != nil {
		t.Fatal(err)
	}
	if has, err := state.Has(s, []byte("empty")); has || err != nil {
		t.Errorf("Has of a deleted key = %v, %v", has, err)
	}
	if err := state.Delete(s, []byte("empty"), state.NoSync); err != nil {
		t.Errorf("delete of a missing key: %v", err)
	}
}

func testScan(t *testing.T, s state.Store, _ func() state.Store) {
	fill(t, s, "a", "b/", "b/\x00", "b/\xff", "b/x", "b0", "c")
	for _, test := range []struct {
		r    state.Range
		want string
	}{
		{state.Prefix("b/"), "b/ b/\x00 b/x b/\xff"},
		{state.Prefix("b/\xff"), "b/\xff"},
		{state.Prefix("b/").After([]byte("b/\x00")), "b/x b/\xff"},
		{state.Range{From: []byte("b/x"), To: []byte("c")}, "b/x b/\xff b0"},
		{state.Range{From: []byte("b/x"), To: []byte("c"), Reverse: true}, "b0 b/\xff b/x"},
		{state.Range{From: []byte("c"), To: []byte("b")}, ""},
		{state.Prefix("d"), ""},
	} {
		if got := keys(t, s, test.r); got != test.want {
			t.Errorf("Scan(%q to %q, reverse %v) = %q, want %q", test.r.From, test.r.To, test.r.Reverse, got, test.want)
		}
	}
}

func testStop(t *testing.T, s state.Store, _ func() state.Store) {
	fill(t, s, "a", "b", "c")
	visited := 0
	if err := s.Scan(state.Prefix("b"), func(_, _ []byte) error { visited++; return state.ErrStop }); err != nil || visited != 1 {
		t.Errorf("Scan until ErrStop: %v after %d keys, want one key", err, visited)
	}
	failed := errors.New("failed")
	if err := s.Scan(state.Prefix("a"), func(_, _ []byte) error { return failed }); !errors.Is(err, failed) {
		t.Errorf("Scan: %v, want the error of visit", err)
	}
	// A scan does not block commits.
	err := s.Scan(state.Prefix("a"), func(key, _ []byte) error { return state.Set(s, []byte("a"), []byte("x"), state.Sync) })
	if err != nil {
		t.Errorf("Commit during a scan: %v", err)
	}
}

// testOrder checks that the changes of a batch are applied in their order.
func testOrder(t *testing.T, s state.Store, _ func() state.Store) {
	fill(t, s, "a/1", "a/2", "b")
	commit(t, s, func(b *state.Batch) {
		b.Set([]byte("a/0"), []byte("a/0"))
		b.DeleteRange(state.Prefix("a/"))
		b.Set([]byte("a/1"), []byte("a/1"))
		b.Delete([]byte("b"))
		b.Set([]byte("b"), []byte("b"))
		b.Set([]byte("c"), []byte("c"))
		b.Delete([]byte("c"))
		b.Set([]byte("d"), []byte("d"))
	})
	if got := keys(t, s, state.Range{From: []byte("a"), To: []byte("e")}); got != "a/1 b d" {
		t.Errorf("keys after the batch: %q, want a/1 b d", got)
	}
}

// testBatchGet checks that Batch.Get returns what Store.Get returns after the commit.
func testBatchGet(t *testing.T, s state.Store, _ func() state.Store) {
	fill(t, s, "a/1", "a/2", "a/3", "b")
	names := []string{"a/0", "a/1", "a/2", "a/3", "b", "c", "d"}
	values := func(get func(key []byte) ([]byte, error)) (all []string) {
		for _, name := range names {
			value, err := get([]byte(name))
			if err != nil && !errors.Is(err, state.ErrNotFound) {
				t.Fatal(err)
			}
			all = append(all, fmt.Sprintf("%s=%s %v", name, value, err))
		}
		return all
	}
	var b state.Batch
	compare := func(step string) {
		t.Helper()
		got := values(func(key []byte) ([]byte, error) { return b.Get(s, key) })
		if err := s.Commit(&b, state.NoSync); err != nil {
			t.Fatal(err)
		}
		if want := values(s.Get); !slices.Equal(got, want) {
			t.Errorf("%s: the batch has %q, the store has %q after the commit", step, got, want)
		}
	}
	compare("empty")
	b.Set([]byte("c"), []byte("x"))
	b.Delete([]byte("b"))
	compare("set and delete")
	b.DeleteRange(state.Prefix("a/"))
	b.Set([]byte("a/2"), []byte("x"))
	compare("range")
	b.Set([]byte("c"), []byte("y"))
	b.DeleteRange(state.Range{From: []byte("c"), To: []byte("d")})
	compare("range over a set key")

	var pending state.Batch
	pending.Set([]byte("d"), []byte("pending"))
	if value, err := pending.Get(s, []byte("d")); err != nil || string(value) != "pending" {
		t.Errorf("Get of a pending key = %q, %v", value, err)
	}
	if has, err := state.Has(s, []byte("d")); has || err != nil {
		t.Errorf("Has of a key that is not committed = %v, %v", has, err)
	}
}

func testReopen(t *testing.T, s state.Store, reopen func() state.Store) {
	if err := state.Set(s, []byte("a"), []byte("a"), state.NoSync); err != nil {
		t.Fatal(err)
	}
	fill(t, s, "b") // with Sync, which makes the earlier commit durable
	if got := keys(t, reopen(), state.Range{From: []byte("a"), To: []byte("e")}); got != "a b" {
		t.Errorf("keys after reopening: %q, want a b", got)
	}
}
