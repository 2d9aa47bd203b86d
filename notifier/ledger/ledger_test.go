package ledger_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/tidings-dev/tidings/notifier/ledger"
	"github.com/tidings-dev/tidings/notifier/state"
)

func open(t *testing.T) (*ledger.Ledger, state.Store) {
	t.Helper()
	db, err := state.Open(state.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	s := state.OnPebble(db)
	return ledger.New(s), s
}

func change(t *testing.T, db state.Store, f func(*state.Batch)) {
	t.Helper()
	var b state.Batch
	f(&b)
	if err := db.Commit(&b, state.Sync); err != nil {
		t.Fatal(err)
	}
}

func TestLedger(t *testing.T) {
	t.Parallel()
	l, db := open(t)
	digests := []string{
		digest.FromString("a").String(),
		"sha256:" + strings.Repeat("ff", 32), // the last key of its length
		"sha256:" + strings.Repeat("fe", 32),
		"sha256:" + strings.Repeat("FF", 32),
		"sha512:" + strings.Repeat("ff", 64),
		"md5:abc", "odd", "",
	}
	owners := []string{"did:web:a.example", "did:plc:b"}
	want := map[string]ledger.Entry{}
	change(t, db, func(b *state.Batch) {
		for i, d := range digests {
			for k, owner := range owners {
				e := ledger.Entry{First: 1_700_000_000_000_000 + int64(i), ClockID: uint(k), Records: i * 100}
				for n := range i {
					e = e.With(fmt.Sprint("repository/", n))
				}
				want[owner+" "+d] = e
				l.Put(b, owner, d, e)
			}
		}
	})
	got := map[string]ledger.Entry{}
	if err := l.All(func(owner, digest string, e ledger.Entry) error { got[owner+" "+digest] = e; return nil }); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, limit := range []int{1, 3, len(want), 1000} {
		paged := map[string]ledger.Entry{}
		for after, pages := []byte(nil), 0; pages == 0 || after != nil; pages++ {
			page, next, err := l.Page(after, limit)
			if err != nil || len(page) > limit {
				t.Fatalf("Page of %d: %d entries, %v", limit, len(page), err)
			}
			for _, m := range page {
				paged[m.Owner+" "+m.Digest] = m.Entry
			}
			after = next
		}
		if !reflect.DeepEqual(paged, want) {
			t.Errorf("pages of %d: got %v, want %v", limit, paged, want)
		}
	}
	for _, d := range digests {
		found, err := l.Owners(d)
		if err != nil {
			t.Fatal(err)
		}
		if len(found) != 2 {
			t.Errorf("%q has owners %v, want 2", d, found)
		}
		for _, owner := range owners {
			e, ok, err := l.Get(owner, d)
			if err != nil || !ok || !reflect.DeepEqual(e, want[owner+" "+d]) || !reflect.DeepEqual(e, found[owner]) {
				t.Errorf("Get(%s, %q) = %v, %v, %v; want %v", owner, d, e, ok, err, want[owner+" "+d])
			}
		}
	}
	change(t, db, func(b *state.Batch) { l.Delete(b, owners[0], digests[0]) })
	if _, ok, err := l.Get(owners[0], digests[0]); ok || err != nil {
		t.Errorf("Get of a deleted entry = %v, %v", ok, err)
	}
	change(t, db, l.Clear)
	if err := l.All(func(owner, digest string, e ledger.Entry) error {
		return fmt.Errorf("%s %s exists after Clear", owner, digest)
	}); err != nil {
		t.Error(err)
	}
}

func TestEntryRepositories(t *testing.T) {
	t.Parallel()
	e := ledger.Entry{}.With("b").With("a").With("b")
	if got := strings.Join(e.Repositories, " "); got != "a b" {
		t.Errorf("repositories are %q, want a b", got)
	}
	left := e.Without("b")
	if !left.In("a") || left.In("b") || !e.In("b") {
		t.Errorf("Without(b) of %v = %v", e, left)
	}
}

func FuzzDecode(f *testing.F) {
	l := ledger.Entry{First: 5, ClockID: 6, Records: 7}.With("oss/app")
	f.Add(l.Encoded())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ledger.Decode(b)
		if err != nil {
			return
		}
		again, err := ledger.Decode(e.Encoded())
		if err != nil || !reflect.DeepEqual(e, again) {
			t.Errorf("%x is decoded as %+v, and encoded and decoded again as %+v, %v", b, e, again, err)
		}
	})
}
