package ledger_test

import (
	"reflect"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/tidings-dev/tidings/notifier/ledger"
	"github.com/tidings-dev/tidings/notifier/state"
)

// step is something that happens to a manifest, and what has to follow.
type step struct {
	do    string // push, delete, settle
	repo  string
	at    int64
	acts  bool // records are written, or removed
	state ledger.State
	first int64 // the keys in force
	in    []string
}

func TestEntry(t *testing.T) {
	t.Parallel()
	for name, steps := range map[string][]step{
		"pushed once": {
			{do: "push", repo: "a", at: 10, acts: true, state: ledger.Claimed, first: 10, in: []string{"a"}},
			{do: "settle", state: ledger.Written, first: 10, in: []string{"a"}},
		},
		"pushed again": {
			{do: "push", repo: "a", at: 10, acts: true, state: ledger.Claimed, first: 10, in: []string{"a"}},
			{do: "settle", state: ledger.Written, first: 10, in: []string{"a"}},
			{do: "push", repo: "a", at: 20, acts: false, state: ledger.Written, first: 10, in: []string{"a"}},
		},
		"two at once write under the first's keys": {
			{do: "push", repo: "a", at: 10, acts: true, state: ledger.Claimed, first: 10, in: []string{"a"}},
			{do: "push", repo: "a", at: 11, acts: true, state: ledger.Claimed, first: 10, in: []string{"a"}},
		},
		"deleted and pushed again": {
			{do: "push", repo: "a", at: 10, acts: true, state: ledger.Claimed, first: 10, in: []string{"a"}},
			{do: "settle", state: ledger.Written, first: 10, in: []string{"a"}},
			{do: "delete", repo: "a", at: 20, acts: true, state: ledger.Deleted, first: 10},
			{do: "push", repo: "a", at: 30, acts: true, state: ledger.Claimed, first: 30, in: []string{"a"}},
		},
		"an older push after the delete": {
			{do: "delete", repo: "a", at: 20, acts: false, state: ledger.Deleted},
			{do: "push", repo: "a", at: 10, acts: false, state: ledger.Deleted},
		},
		"an older delete after the push": {
			{do: "push", repo: "a", at: 30, acts: true, state: ledger.Claimed, first: 30, in: []string{"a"}},
			{do: "delete", repo: "a", at: 20, acts: false, state: ledger.Claimed, first: 30, in: []string{"a"}},
		},
		"in two repositories": {
			{do: "push", repo: "b", at: 10, acts: true, state: ledger.Claimed, first: 10, in: []string{"b"}},
			{do: "settle", state: ledger.Written, first: 10, in: []string{"b"}},
			{do: "push", repo: "a", at: 20, acts: false, state: ledger.Written, first: 10, in: []string{"a", "b"}},
			{do: "delete", repo: "b", at: 30, acts: false, state: ledger.Written, first: 10, in: []string{"a"}},
			{do: "delete", repo: "a", at: 40, acts: true, state: ledger.Deleted, first: 10},
		},
		"deleted twice": {
			{do: "push", repo: "a", at: 10, acts: true, state: ledger.Claimed, first: 10, in: []string{"a"}},
			{do: "delete", repo: "a", at: 20, acts: true, state: ledger.Deleted, first: 10},
			{do: "delete", repo: "a", at: 21, acts: false, state: ledger.Deleted, first: 10},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, err := state.Open(state.Config{Dir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			l := ledger.New(db)
			for i, s := range steps {
				e, err := l.Get("did:web:x", "sha256:1")
				if err != nil {
					t.Fatal(err)
				}
				var acts bool
				switch s.do {
				case "push":
					e, acts = e.Push(ledger.Push{Repository: s.repo, First: s.at, Records: 2})
				case "delete":
					e, acts = e.Delete(s.repo, s.at)
				case "settle":
					e = e.Settle()
				}
				if acts != s.acts || e.State != s.state || e.First != s.first || !reflect.DeepEqual(e.Repositories, s.in) && len(s.in)+len(e.Repositories) > 0 {
					t.Fatalf("step %d %s: acts %v, entry %+v; want %+v", i, s.do, acts, e, s)
				}
				b := db.NewBatch()
				if err := l.Put(b, "did:web:x", "sha256:1", e); err != nil {
					t.Fatal(err)
				}
				if err := db.Commit(b, pebble.Sync); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
