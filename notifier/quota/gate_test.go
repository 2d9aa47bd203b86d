package quota

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/usage"
)

const alice, bob = "did:plc:alice", "did:plc:bob"

func layer(name string, size int64) usage.Layer {
	return usage.Layer{Digest: digest.FromString(name).String(), Size: size}
}

// rig is a gate, and the writes that a sink would make.
type rig struct {
	*Gate
	t     testing.TB
	files *store.Store // of db
	db    state.Store
	table *usage.Table
	seq   uint64
}

func newRig(t testing.TB, limit int64) *rig {
	t.Helper()
	db, err := state.Open(state.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	r := &rig{t: t, files: db, db: state.OnPebble(db)}
	r.table = usage.New(r.db)
	r.Gate = New(Tiers{Limits: map[string]int64{"free": limit}, Owners: map[string]string{bob: ""}, Default: "free"}, r.table, NewMetrics())
	if err := r.Load(); err != nil {
		t.Fatal(err)
	}
	r.Loaded()
	return r
}

// push reserves and records a push, and returns its sequence number.
func (r *rig) push(layers ...usage.Layer) (uint64, *ExceededError) {
	r.t.Helper()
	reserved, err := r.Reserve(r.t.Context(), alice, layers)
	var exceeded *ExceededError
	if errors.As(err, &exceeded) {
		return 0, exceeded
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.seq++
	reserved.Record(r.seq)
	return r.seq, nil
}

func (r *rig) fits(what string, layers ...usage.Layer) uint64 {
	r.t.Helper()
	seq, err := r.push(layers...)
	if err != nil {
		r.t.Errorf("%s: %v", what, err)
	}
	return seq
}

func (r *rig) refused(what string, used, push int64, layers ...usage.Layer) {
	r.t.Helper()
	_, err := r.push(layers...)
	if err == nil || err.Used != used || err.Push != push || err.Limit != 100 || err.Tier != "free" || err.Owner != alice {
		r.t.Errorf("%s: got %+v, want %d used and a push of %d", what, err, used, push)
	}
}

// write commits a manifest, nil: its deletion, and ends the events up to seq.
func (r *rig) write(seq uint64, manifest string, layers ...usage.Layer) {
	r.t.Helper()
	var b state.Batch
	err := r.table.Remove(&b, alice, manifest)
	if layers != nil {
		err = r.table.Add(&b, alice, manifest, layers)
	}
	if err == nil {
		err = r.db.Commit(&b, state.NoSync)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.Refresh(alice)
	r.Written(seq)
}

func TestReserve(t *testing.T) {
	t.Parallel()
	r := newRig(t, 100)
	base, app, other := layer("base", 60), layer("app", 30), layer("other", 30)
	r.refused("more than the limit", 0, 101, layer("huge", 101))
	first := r.fits("the first push", base, app)
	r.fits("the same layers again", base, app)
	r.refused("with pending pushes", 90, 30, other)
	r.fits("up to the limit", layer("ten", 10))
	r.refused("one byte more", 100, 1, layer("one", 1))
	r.write(first, "m1", base, app)
	r.refused("with one of them written", 100, 1, layer("one", 1))
	r.write(r.seq, "m2", base, layer("ten", 10))
	r.refused("with all of them written", 100, 30, other, base)
	r.fits("layers that count already", base, app)
	r.fits("no layers")
	r.write(r.seq, "m1")
	r.refused("after a delete", 70, 31, layer("more", 31))
	r.fits("what the delete freed", other)
	if reserved, err := r.Reserve(t.Context(), bob, []usage.Layer{layer("huge", 1<<40)}); reserved != nil || err != nil {
		t.Errorf("without a limit: %v, %v", reserved, err)
	}
}

func TestReleaseAndLateRecord(t *testing.T) {
	t.Parallel()
	r := newRig(t, 100)
	for _, end := range []string{"released", "released twice", "written before it is noted"} {
		reserved, err := r.Reserve(t.Context(), alice, []usage.Layer{layer("a", 80)})
		if err != nil {
			t.Fatalf("%s: %v", end, err)
		}
		r.refused("while it is reserved", 80, 80, layer("b", 80))
		switch end {
		case "written before it is noted":
			r.seq++
			r.write(r.seq, "m1", layer("a", 80))
			r.write(r.seq, "m1")
			reserved.Record(r.seq)
		case "released twice":
			reserved.Release()
			fallthrough
		default:
			reserved.Release()
		}
	}
	r.fits("after all of them", layer("b", 100))
}

// A push that fits once pending deletes are written is not refused.
func TestPendingDeletes(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		owner, manifest string
		fits            bool
	}{
		"of the manifest":             {"", "m1", true},
		"of the owner's manifest":     {alice, "m1", true},
		"of another owner's manifest": {bob, "m1", false},
		"of all of the owner's":       {alice, "", true},
		"of all of another owner's":   {bob, "", false},
		"of an unknown manifest":      {"", "m9", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 100)
			r.write(r.fits("the first push", layer("a", 90)), "m1", layer("a", 90))
			r.refused("before", 90, 20, layer("b", 20))
			r.seq++
			r.Freeing(r.seq, test.owner, test.manifest)
			if _, err := r.push(layer("b", 20)); (err == nil) != test.fits {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestUnverified(t *testing.T) {
	t.Parallel()
	r := newRig(t, 100)
	r.loaded = false
	r.fits("before the pending events are read", layer("a", 101))
	r.Loaded()
	r.refused("afterwards", 101, 1, layer("b", 1))
	r.account(alice).looking <- struct{}{} // a lookup that does not end
	r.fits("while a lookup takes too long", layer("b", 1))
	<-r.account(alice).looking
	r.refused("afterwards", 102, 1, layer("c", 1))
	for i := range maxFreeing {
		r.Freeing(r.seq+1+uint64(i), bob, "m")
	}
	r.fits("with too many deletes", layer("c", 1))
}

// countingStore counts reads.
type countingStore struct {
	state.Store
	gets, exists, scans int
}

func (s *countingStore) Get(key []byte) ([]byte, error) {
	s.gets++
	return s.Store.Get(key)
}

func (s *countingStore) Exist(ctx context.Context, keys [][]byte) ([]bool, error) {
	s.exists += len(keys)
	return s.Store.Exist(ctx, keys)
}

func (s *countingStore) Scan(r state.Range, visit func(key, value []byte) error) error {
	s.scans++
	return s.Store.Scan(r, visit)
}

// A push that fits is checked without a read, and one that does not with one read for its
// total and one for each of its layers, however many layers the owner has.
func TestCheckReads(t *testing.T) {
	t.Parallel()
	for _, count := range []int{100, 10_000} {
		r := newRig(t, int64(count))
		fillUsage(t, r, count)
		reads := &countingStore{Store: r.db}
		r.usage = usage.New(reads)
		push := []usage.Layer{layer("new", 1), layer("0 1", 1), layer("0 2", 1), layer("new", 1)}
		if _, err := r.push(push...); err == nil || err.Push != 1 {
			t.Errorf("%d layers: got %v", count, err)
		}
		if want := (countingStore{reads.Store, 1, 3, 0}); *reads != want {
			t.Errorf("%d layers: a refused push takes %+v, want %+v", count, *reads, want)
		}
		r.tiers.Limits["free"] += int64(len(push))
		*reads = countingStore{Store: r.db}
		r.fits("within the limit", push...)
		if want := (countingStore{Store: r.db}); *reads != want {
			t.Errorf("%d layers: a push that fits takes %+v", count, *reads)
		}
	}
}

// fillUsage counts manifests of 100 layers of one byte each, up to count layers.
func fillUsage(t testing.TB, r *rig, count int) {
	t.Helper()
	var batch state.Batch
	for m := range count / 100 {
		layers := make([]usage.Layer, 100)
		for i := range layers {
			layers[i] = layer(fmt.Sprint(m, " ", i), 1)
		}
		if err := r.table.Add(&batch, alice, digest.FromString(fmt.Sprint(m)).String(), layers); err != nil {
			t.Fatal(err)
		}
		if m%100 == 99 || m == count/100-1 {
			if err := r.db.Commit(&batch, state.NoSync); err != nil {
				t.Fatal(err)
			}
			batch = state.Batch{}
		}
	}
	r.Refresh(alice)
}
