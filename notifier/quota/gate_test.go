package quota

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/usage"
)

const alice, bob = "did:plc:alice", "did:plc:bob"

func named(name string, size int64) usage.Layer {
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

func complete() (bool, error) { return true, nil }

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
	if err := r.Load(t.Context(), complete); err != nil {
		t.Fatal(err)
	}
	r.Resumed()
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
	changed, err := r.table.Remove(&b, alice, manifest)
	if layers != nil && err == nil {
		var added []usage.Layer
		added, err = r.table.Add(&b, alice, manifest, layers)
		changed = append(changed, added...)
	}
	if err == nil {
		err = r.Commit(usage.Changes{alice: changed}, func() error { return r.db.Commit(&b, state.NoSync) })
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.Written(seq)
}

func TestReserve(t *testing.T) {
	t.Parallel()
	r := newRig(t, 100)
	base, app, other := named("base", 60), named("app", 30), named("other", 30)
	r.refused("more than the limit", 0, 101, named("huge", 101))
	first := r.fits("the first push", base, app)
	r.fits("the same layers again", base, app)
	r.refused("with pending pushes", 90, 30, other)
	r.fits("up to the limit", named("ten", 10))
	r.refused("one byte more", 100, 1, named("one", 1))
	r.write(first, "m1", base, app)
	r.refused("with one of them written", 100, 1, named("one", 1))
	r.write(r.seq, "m2", base, named("ten", 10))
	r.refused("with all of them written", 100, 30, other, base)
	r.fits("layers that count already", base, app)
	r.fits("no layers")
	r.write(r.seq, "m1")
	r.refused("after a delete", 70, 31, named("more", 31))
	r.fits("what the delete freed", other)
	if reserved, err := r.Reserve(t.Context(), bob, []usage.Layer{named("huge", 1<<40)}); reserved != nil || err != nil {
		t.Errorf("without a limit: %v, %v", reserved, err)
	}
}

func TestReleaseAndLateRecord(t *testing.T) {
	t.Parallel()
	r := newRig(t, 100)
	for _, end := range []string{"released", "released twice", "written before it is noted"} {
		reserved, err := r.Reserve(t.Context(), alice, []usage.Layer{named("a", 80)})
		if err != nil {
			t.Fatalf("%s: %v", end, err)
		}
		r.refused("while it is reserved", 80, 80, named("b", 80))
		switch end {
		case "written before it is noted":
			r.seq++
			r.write(r.seq, "m1", named("a", 80))
			r.write(r.seq, "m1")
			reserved.Record(r.seq)
		case "released twice":
			reserved.Release()
			fallthrough
		default:
			reserved.Release()
		}
	}
	r.fits("after all of them", named("b", 100))
}

// A push that does not fit waits for deletes of its owner that were recorded before, and is
// checked again.
func TestPendingDeletes(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		deletesOf string
		written   string // the manifest whose delete is written
		waits     bool
		fits      bool
	}{
		"of its owner":                 {alice, "m1", true, true},
		"of any owner":                 {"", "m1", true, true},
		"of another owner":             {"did:plc:carol", "", false, false},
		"without an effect":            {alice, "", true, false},
		"of a manifest that is shared": {alice, "m2", true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 100)
			r.maxWait = time.Hour
			r.write(r.fits("the first push", named("a", 90)), "m1", named("a", 90))
			r.write(r.fits("with its layer", named("a", 90)), "m2", named("a", 90))
			if test.fits {
				r.write(r.seq, "m2")
			}
			r.refused("before", 90, 20, named("b", 20))
			r.seq++
			r.Freeing(r.seq, test.deletesOf)
			result := make(chan error, 1)
			go func() {
				_, err := r.Reserve(t.Context(), alice, []usage.Layer{named("b", 20)})
				result <- err
			}()
			if test.waits {
				select {
				case err := <-result:
					t.Fatalf("it did not wait: %v", err)
				case <-time.After(20 * time.Millisecond):
				}
				r.Freeing(r.seq+1, test.deletesOf) // recorded later: it does not wait for this
				r.write(r.seq, test.written)
			}
			if err := <-result; (err == nil) != test.fits {
				t.Errorf("got %v", err)
			}
		})
	}
}

// If the deletes are not written in time, or the client is gone, the push is refused.
func TestPendingDeletesLast(t *testing.T) {
	t.Parallel()
	r := newRig(t, 100)
	r.maxWait = 10 * time.Millisecond
	r.write(r.fits("the first push", named("a", 90)), "m1", named("a", 90))
	r.seq++
	r.Freeing(r.seq, alice)
	_, exceeded := r.push(named("b", 20))
	if exceeded == nil || !exceeded.Pending || !strings.Contains(exceeded.Error(), "deletes are pending") {
		t.Errorf("got %v", exceeded)
	}
	r.maxWait = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Reserve(ctx, alice, []usage.Layer{named("b", 20)}); err == nil {
		t.Error("the push of a client that is gone is accepted")
	}
	r.fits("within the limit", named("c", 10))
	r.fits("without new layers", named("a", 90))
	r.write(r.seq, "m1")
	r.refused("afterwards", 0, 101, named("d", 101))
	if _, exceeded := r.push(named("d", 101)); exceeded.Pending {
		t.Errorf("no delete is pending: %v", exceeded)
	}
}

// While it is not known what an owner has, no push is refused.
func TestUnverified(t *testing.T) {
	t.Parallel()
	r := newRig(t, 100)
	huge := named("huge", 101)
	r.loaded = false
	r.fits("not loaded", huge)
	if err := r.Load(t.Context(), func() (bool, error) { return false, nil }); err != nil {
		t.Fatal(err)
	}
	r.fits("not complete", huge)
	if err := r.Load(t.Context(), func() (bool, error) { return false, io.EOF }); err != io.EOF {
		t.Errorf("got %v", err)
	}
	r.resumed = false
	if err := r.Load(t.Context(), complete); err != nil {
		t.Fatal(err)
	}
	r.fits("before the pending events are read", huge)
	r.Resumed()
	r.refused("afterwards", 101, 1, named("b", 1))
	r.Unload()
	r.fits("while the usage is counted again", named("b", 1))
}

// failingReads is a state whose rows cannot be read while failing is set.
type failingReads struct {
	state.Store
	failing atomic.Bool
}

func (f *failingReads) Get(key []byte) ([]byte, error) {
	if f.failing.Load() {
		return nil, errors.New("damaged")
	}
	return f.Store.Get(key)
}

// While the changes of a batch cannot be read, no push is refused, and the next batch reads
// them.
func TestUnreadableUsage(t *testing.T) {
	t.Parallel()
	r := newRig(t, 100)
	reads := &failingReads{Store: r.db}
	r.usage = usage.New(reads)
	first := r.fits("the first push", named("a", 60))
	reads.failing.Store(true)
	r.write(first, "m1", named("a", 60))
	second := r.fits("while the usage is not known", named("b", 60))
	reads.failing.Store(false)
	if err := r.Commit(nil, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	r.refused("once it is known", 120, 1, named("c", 1))
	r.write(second, "m2", named("b", 60))
	r.fits("layers of both batches", named("a", 60), named("b", 60))
}

// A commit that fails may have been applied.
func TestFailedCommit(t *testing.T) {
	t.Parallel()
	for _, applied := range []bool{false, true} {
		t.Run(fmt.Sprint("applied ", applied), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 100)
			reserved, err := r.Reserve(t.Context(), alice, []usage.Layer{named("a", 60)})
			if err != nil {
				t.Fatal(err)
			}
			var b state.Batch
			changed, err := r.table.Add(&b, alice, "m1", []usage.Layer{named("a", 60)})
			if err != nil {
				t.Fatal(err)
			}
			failed := errors.New("no answer")
			err = r.Commit(usage.Changes{alice: changed}, func() error {
				if !applied {
					return failed
				}
				return errors.Join(failed, r.db.Commit(&b, state.NoSync))
			})
			if !errors.Is(err, failed) {
				t.Errorf("got %v", err)
			}
			r.refused("while the push is pending", 60, 41, named("b", 41))
			reserved.Release()
			if applied {
				r.refused("afterwards", 60, 41, named("b", 41))
			} else {
				r.fits("afterwards", named("b", 41))
			}
		})
	}
}

// Load replaces what was known of owners, and reservations stay.
func TestLoadAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t, 100)
	r.write(r.fits("the first push", named("a", 50)), "m1", named("a", 50))
	r.fits("a pending push", named("b", 30))
	var b state.Batch
	r.table.Clear(&b)
	if _, err := r.table.Add(&b, alice, "m2", []usage.Layer{named("b", 30), named("c", 20)}); err != nil {
		t.Fatal(err)
	}
	r.Unload()
	if err := errors.Join(r.db.Commit(&b, state.NoSync), r.Load(t.Context(), complete)); err != nil {
		t.Fatal(err)
	}
	r.refused("another manifest", 50, 101, named("d", 101))
	r.fits("its layers", named("b", 30), named("c", 20))
	b = state.Batch{}
	r.table.Clear(&b)
	r.Unload()
	if err := errors.Join(r.db.Commit(&b, state.NoSync), r.Load(t.Context(), complete)); err != nil {
		t.Fatal(err)
	}
	r.refused("none, with pending pushes", 50, 101, named("d", 101))
	r.Written(r.seq)
	r.refused("none", 0, 101, named("d", 101))
}

// Pushes that are checked at the same moment together do not exceed the limit.
func TestConcurrentPushes(t *testing.T) {
	t.Parallel()
	r := newRig(t, 100)
	var accepted atomic.Int64
	var g sync.WaitGroup
	for i := range 300 {
		g.Go(func() {
			if _, err := r.Reserve(t.Context(), alice, []usage.Layer{named(fmt.Sprint(i), 1)}); err == nil {
				accepted.Add(1)
			}
		})
	}
	g.Wait()
	if n := accepted.Load(); n != 100 {
		t.Errorf("%d pushes of one byte are accepted, want 100", n)
	}
}

// Reservations end in the order of their events, whatever the order in which they were noted.
func TestRecordedInAnyOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t, 100)
	reserved := map[uint64]*Reservation{}
	for seq := range uint64(10) {
		var err error
		if reserved[seq+1], err = r.Reserve(t.Context(), alice, []usage.Layer{named(fmt.Sprint(seq), 10)}); err != nil {
			t.Fatal(err)
		}
	}
	for seq, reservation := range reserved { // in random order
		reservation.Record(seq)
	}
	for written := range uint64(11) {
		r.Written(written)
		r.refused(fmt.Sprint(written, " are written"), int64(100-10*written), 101, named("huge", 101))
	}
	if len(r.recorded) > 0 {
		t.Errorf("%d are left", len(r.recorded))
	}
}

// noReads is a state that must not be read.
type noReads struct{ state.Store }

func (noReads) Get([]byte) ([]byte, error) { panic("a check has read a row") }

func (noReads) Scan(state.Range, func(key, value []byte) error) error { panic("a check has read rows") }

// A push is checked without a read of the disk.
func TestCheckReadsNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1000)
	fillUsage(t, r, 1000)
	r.usage = usage.New(noReads{r.db})
	push := []usage.Layer{named("new", 1), named("0 1", 1), named("0 2", 1), named("new", 1)}
	if _, err := r.push(push...); err == nil || err.Used != 1000 || err.Push != 1 {
		t.Errorf("got %v", err)
	}
	r.tiers.Limits["free"]++
	r.fits("within the limit", push...)
	if _, err := r.push(named("newer", 1)); err == nil || err.Used != 1001 || err.Push != 1 {
		t.Errorf("got %v", err)
	}
}

// fillUsage counts manifests of 100 layers of one byte each, up to count layers.
func fillUsage(t testing.TB, r *rig, count int) {
	t.Helper()
	var batch state.Batch
	for m := range count / 100 {
		layers := make([]usage.Layer, 100)
		for i := range layers {
			layers[i] = named(fmt.Sprint(m, " ", i), 1)
		}
		if _, err := r.table.Add(&batch, alice, digest.FromString(fmt.Sprint(m)).String(), layers); err != nil {
			t.Fatal(err)
		}
		if m%100 == 99 || m == count/100-1 {
			if err := r.db.Commit(&batch, state.NoSync); err != nil {
				t.Fatal(err)
			}
			batch = state.Batch{}
		}
	}
	r.Unload()
	if err := r.Load(t.Context(), complete); err != nil {
		t.Fatal(err)
	}
}
