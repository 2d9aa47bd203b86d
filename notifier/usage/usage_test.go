package usage

import (
	"context"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/tidings-dev/tidings/notifier/state"
)

func openState(t testing.TB) state.Store {
	t.Helper()
	db, err := state.Open(state.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return state.OnPebble(db)
}

func commit(t testing.TB, db state.Store, change func(b *state.Batch) error) {
	t.Helper()
	var b state.Batch
	if err := change(&b); err != nil {
		t.Fatal(err)
	}
	if err := db.Commit(&b, state.NoSync); err != nil {
		t.Fatal(err)
	}
}

func layer(name string, size int64) Layer { return Layer{digest.FromString(name).String(), size} }

const alice, bob = "did:plc:alice", "did:plc:al"

func TestTable(t *testing.T) {
	t.Parallel()
	a, b, c := layer("a", 10), layer("b", 20), layer("c", 40)
	odd := Layer{"tree:of-another-kind", 5}
	type step struct {
		owner, manifest string
		layers          []Layer // nil: removed
	}
	for name, test := range map[string]struct {
		steps []step
		want  map[string]Total
	}{
		"one manifest":           {[]step{{alice, "m1", []Layer{a, b}}}, map[string]Total{alice: {2, 30}}},
		"a shared layer":         {[]step{{alice, "m1", []Layer{a, b}}, {alice, "m2", []Layer{b, c}}}, map[string]Total{alice: {3, 70}}},
		"added again":            {[]step{{alice, "m1", []Layer{a, b}}, {alice, "m1", []Layer{a, b}}}, map[string]Total{alice: {2, 30}}},
		"removed":                {[]step{{alice, "m1", []Layer{a, b}}, {alice, "m2", []Layer{b, c}}, {alice, "m1", nil}}, map[string]Total{alice: {2, 60}}},
		"removed twice":          {[]step{{alice, "m1", []Layer{a}}, {alice, "m2", []Layer{a}}, {alice, "m1", nil}, {alice, "m1", nil}}, map[string]Total{alice: {1, 10}}},
		"all removed":            {[]step{{alice, "m1", []Layer{a, b}}, {alice, "m1", nil}}, map[string]Total{}},
		"another owner":          {[]step{{alice, "m1", []Layer{a}}, {bob, "m1", []Layer{a, c}}, {alice, "m1", nil}}, map[string]Total{bob: {2, 50}}},
		"without a size":         {[]step{{alice, "m1", []Layer{layer("a", 0)}}}, map[string]Total{alice: {1, 0}}},
		"two sizes of one layer": {[]step{{alice, "m1", []Layer{a}}, {alice, "m2", []Layer{layer("a", 11)}}, {alice, "m1", nil}}, map[string]Total{alice: {1, 11}}},
		"not hexadecimal":        {[]step{{alice, "m1", []Layer{odd, a}}, {alice, "m2", []Layer{odd}}, {alice, "m1", nil}}, map[string]Total{alice: {1, 5}}},
		"an overflow":            {[]step{{alice, "m1", []Layer{layer("x", math.MaxInt64), layer("y", 2)}}}, map[string]Total{alice: {2, math.MaxInt64}}},
		"after an overflow": {[]step{{alice, "m1", []Layer{layer("x", math.MaxInt64)}}, {alice, "m2", []Layer{a}}, {alice, "m1", nil}},
			map[string]Total{alice: {1, 10}}},
	} {
		for _, together := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " in one batch ", together), func(t *testing.T) {
				t.Parallel()
				db := openState(t)
				table := New(db)
				var all state.Batch
				for _, s := range test.steps {
					one := &state.Batch{}
					if together {
						one = &all
					}
					_, err := table.Remove(one, s.owner, digest.FromString(s.manifest).String())
					if s.layers != nil {
						_, err = table.Add(one, s.owner, digest.FromString(s.manifest).String(), s.layers)
					}
					if err != nil {
						t.Fatal(err)
					}
					if !together {
						commit(t, db, func(b *state.Batch) error { *b = *one; return nil })
					}
				}
				commit(t, db, func(b *state.Batch) error { *b = all; return nil })
				got := map[string]Total{}
				err := table.Owners(func(owner string, total Total) error {
					got[owner] = total
					return nil
				})
				if err != nil || fmt.Sprint(got) != fmt.Sprint(test.want) {
					t.Errorf("got %v, %v, want %v", got, err, test.want)
				}
				for owner, want := range test.want {
					if total, err := table.Total(owner); total != want || err != nil {
						t.Errorf("%s: got %v, %v, want %v", owner, total, err, want)
					}
				}
			})
		}
	}
}

func TestManifests(t *testing.T) {
	t.Parallel()
	db := openState(t)
	table := New(db)
	want := map[string]bool{}
	commit(t, db, func(b *state.Batch) error {
		for i := range 25 {
			m := digest.FromString(fmt.Sprint(i)).String()
			want[m] = true
			if _, err := table.Add(b, alice, m, []Layer{layer(m, 1)}); err != nil {
				return err
			}
		}
		_, err := table.Add(b, bob, digest.FromString("other").String(), []Layer{layer("other", 1)})
		return err
	})
	after := ""
	for {
		page, err := table.Manifests(alice, after, 10)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range page {
			if !want[m.Digest] || !slices.Equal(m.Layers, []Layer{layer(m.Digest, 1)}) {
				t.Errorf("got %+v", m)
			}
			delete(want, m.Digest)
			after = m.Digest
		}
		if len(page) < 10 {
			break
		}
	}
	if len(want) > 0 {
		t.Errorf("%d manifests are missing", len(want))
	}
	first := digest.FromString("0").String()
	has, err := table.Has(alice, []Layer{layer("other", 1), layer(first, 1), layer(first, 2)})
	if !slices.Equal(has, []bool{false, true, false}) || err != nil {
		t.Errorf("a layer of bob, one of alice, and the same with another size: %v, %v", has, err)
	}
}

// model is what a table should have.
type model map[string]map[string][]Layer // by owner and manifest

func (m model) totals() map[string]Total {
	all := map[string]Total{}
	for owner, manifests := range m {
		unique := map[Layer]bool{}
		for _, list := range manifests {
			for _, l := range list {
				unique[l] = true
			}
		}
		var total Total
		for l := range unique {
			total.Blobs, total.Bytes = total.Blobs+1, total.Bytes+l.Size
		}
		if total.Blobs > 0 {
			all[owner] = total
		}
	}
	return all
}

// follower keeps the layers that count by the changes of batches.
type follower map[string]map[Layer]bool

func (f follower) follow(t testing.TB, table *Table, changes Changes) {
	t.Helper()
	for owner, list := range changes {
		has, err := table.Has(owner, list)
		if err != nil {
			t.Fatal(err)
		}
		for i, l := range list {
			if delete(f[owner], l); has[i] {
				f[owner][l] = true
			}
		}
	}
}

func (f follower) compare(t testing.TB, table *Table) {
	t.Helper()
	for owner, want := range f {
		got := map[Layer]bool{}
		if err := table.Layers(owner, func(l Layer) error { got[l] = true; return nil }); err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(got, want) {
			t.Errorf("%s has the layers %v, and by the changes of batches %v", owner, got, want)
		}
	}
}

// After random changes in batches of random length, the totals are those of a model, the
// layers are those that the batches have changed, and a recount finds no difference.
func TestRandomChanges(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 1))
			db := openState(t)
			table, want := New(db), model{alice: {}, bob: {}}
			followed := follower{alice: {}, bob: {}}
			for range 60 {
				changes := Changes{}
				commit(t, db, func(b *state.Batch) error {
					for range random.IntN(8) {
						owner := []string{alice, bob}[random.IntN(2)]
						changed, err := randomChange(random, table, b, owner, want[owner])
						if err != nil {
							return err
						}
						changes[owner] = append(changes[owner], changed...)
					}
					return nil
				})
				followed.follow(t, table, changes)
			}
			followed.compare(t, table)
			got := map[string]Total{}
			if err := table.Owners(func(owner string, total Total) error { got[owner] = total; return nil }); err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(got) != fmt.Sprint(want.totals()) {
				t.Errorf("got %v, want %v", got, want.totals())
			}
			if found := compare(t, table, recount(t, db, want), true); len(found) > 0 {
				t.Errorf("differences: %q", found)
			}
		})
	}
}

func randomChange(random *rand.Rand, table *Table, b *state.Batch, owner string, want map[string][]Layer) ([]Layer, error) {
	m := digest.FromString(fmt.Sprint(random.IntN(12))).String()
	var list []Layer
	for range 1 + random.IntN(4) {
		n := random.IntN(10)
		list = append(list, layer(fmt.Sprint("layer ", n), int64(n*100+random.IntN(2))))
	}
	switch random.IntN(4) {
	case 0, 1:
		if _, known := want[m]; !known {
			want[m] = list
		}
		return table.Add(b, owner, m, list)
	case 2:
		want[m] = list
		return table.Replace(b, owner, m, list)
	}
	delete(want, m)
	return table.Remove(b, owner, m)
}

// recount fills the second table.
func recount(t testing.TB, db state.Store, m model) *Table {
	t.Helper()
	second := NewRecount(db)
	commit(t, db, func(b *state.Batch) error {
		for owner, manifests := range m {
			for manifest, list := range manifests {
				if _, err := second.Add(b, owner, manifest, list); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return second
}

func compare(t testing.TB, table, second *Table, dryRun bool) (found []string) {
	t.Helper()
	err := table.Correct(context.Background(), second, dryRun, func(d Difference) error {
		found = append(found, d.String())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestCorrect(t *testing.T) {
	t.Parallel()
	db := openState(t)
	table := New(db)
	m1, m2, m3 := digest.FromString("m1").String(), digest.FromString("m2").String(), digest.FromString("m3").String()
	a, b := layer("a", 10), layer("b", 20)
	commit(t, db, func(batch *state.Batch) error {
		for m, list := range map[string][]Layer{m1: {a}, m2: {a, b}} {
			if _, err := table.Add(batch, alice, m, list); err != nil {
				return err
			}
		}
		_, err := table.Add(batch, bob, m1, []Layer{a})
		return err
	})
	right := recount(t, db, model{alice: {m1: {a}, m3: {a}}, "did:plc:carol": {m1: {b}}})
	want := []string{
		alice + " " + b.Digest + ": the layer counts, but should not",
		alice + " " + m2 + ": the manifest counts, but should not",
		alice + " " + m3 + ": the manifest does not count, but should",
		alice + ": the total is 2 layers of 30 bytes, but should be 1 layer of 10 bytes",
		bob + " " + a.Digest + ": the layer counts, but should not",
		bob + " " + m1 + ": the manifest counts, but should not",
		bob + ": the total is 1 layer of 10 bytes, but should be 0 layers",
		"did:plc:carol " + b.Digest + ": the layer does not count, but should",
		"did:plc:carol " + m1 + ": the manifest does not count, but should",
		"did:plc:carol: the total is 0 layers, but should be 1 layer of 20 bytes",
	}
	slices.Sort(want)
	for _, dryRun := range []bool{true, false} {
		got := compare(t, table, right, dryRun)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("dry run %v: got\n%s\nwant\n%s", dryRun, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	if got := compare(t, table, right, true); len(got) > 0 {
		t.Errorf("after the correction: %q", got)
	}
	if total, err := table.Total(alice); total != (Total{1, 10}) || err != nil {
		t.Errorf("got %v, %v", total, err)
	}
}
