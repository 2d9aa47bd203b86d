package notifier

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/opencontainers/go-digest"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/internal/race"
	"github.com/tidings-dev/tidings/notifier/delivery"
	"github.com/tidings-dev/tidings/notifier/event"
	"github.com/tidings-dev/tidings/notifier/ledger"
	"github.com/tidings-dev/tidings/notifier/records"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/usage"
)

// wantUsage checks the usage of an owner when nothing is pending, and that a recount has the
// same.
func (r *rig) wantUsage(when, did string, blobs, bytes int64) {
	r.t.Helper()
	r.drain()
	total, err := r.usage.Total(did)
	if want := (usage.Total{Blobs: blobs, Bytes: bytes}); err != nil || total != want {
		r.t.Errorf("%s: %s has %+v, %v, want %+v", when, did, total, err, want)
	}
	r.exactUsage()
}

// withLayers is an image whose layers have names and sizes.
func withLayers(seed string, sizes map[string]int64) Push {
	var list []any
	for name, size := range sizes {
		list = append(list, descriptor("application/vnd.oci.image.layer.v1.tar+gzip", name, int(size)))
	}
	const mediaType = "application/vnd.oci.image.manifest.v1+json"
	payload, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": mediaType, "layers": list,
		"config": descriptor("application/vnd.oci.image.config.v1+json", seed+" config", 100),
	})
	if err != nil {
		panic(err)
	}
	return Push{Repository: "oss/app", Digest: digest.FromBytes(payload).String(), MediaType: mediaType, Payload: payload, Layers: len(list)}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	base, app := withLayers("base", map[string]int64{"os": 1000, "libs": 200}), withLayers("app", map[string]int64{"os": 1000, "app": 30})
	r.push(base)
	r.wantUsage("one image", owner, 2, 1200)
	r.push(app.as("oss/app", "v1"))
	r.wantUsage("a shared layer", owner, 3, 1230)
	r.push(app.as("oss/app", "v2"))
	r.push(app.as("oss/other", "v1"))
	r.wantUsage("pushed again", owner, 3, 1230)
	r.push(withLayers("hidden", map[string]int64{"secret": 5}).as("secret/app", "v1"))
	r.wantUsage("a repository that is not public", owner, 3, 1230)
	r.delete(app)
	r.wantUsage("deleted in one of two repositories", owner, 3, 1230)
	r.reopen(nil)
	r.delete(app.as("oss/other", ""))
	r.wantUsage("deleted", owner, 2, 1200)
	r.delete(app.as("oss/other", ""))
	r.wantUsage("deleted again", owner, 2, 1200)
	r.push(app)
	r.wantUsage("pushed after a delete", owner, 3, 1230)

	r.notify(notificationOf(app, alice))
	r.notify(notificationOf(base, bob))
	r.wantUsage("reported", alice, 2, 1030)
	r.wantUsage("reported", bob, 2, 1200)
	r.notify(notificationOf(app, alice))
	r.wantUsage("reported again", alice, 2, 1030)
	r.notify(notificationOf(app, alice).as(lexicon.VisibilityPrivate))
	r.wantUsage("private", alice, 0, 0)
	r.notify(notificationOf(app, alice).as(lexicon.VisibilityPublic))
	r.wantUsage("public again", alice, 2, 1030)
	r.wantUsage("the others", owner, 3, 1230)
	r.wantUsage("the others", bob, 2, 1200)
}

// A crash between the writes to the account and the commit of ledger and usage, or a lost
// answer, leaves exact totals.
func TestUsageAfterFaults(t *testing.T) {
	t.Parallel()
	for _, f := range [][]fault{{lostRequest}, {lostAnswer}, {lostAnswer, lostRequest, lostAnswer}} {
		t.Run(fmt.Sprint(f), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			a, b := withLayers("a", map[string]int64{"os": 1000, "a": 1}), withLayers("b", map[string]int64{"os": 1000, "b": 2})
			r.push(a)
			r.drain()
			r.account.fail(f...)
			r.push(b)
			r.wantUsage("a push", owner, 3, 1003)
			r.account.fail(f...)
			r.delete(a)
			r.wantUsage("a delete", owner, 2, 1002)

			// The process ends while the batch is in the outbox.
			r.account.fail(f[0])
			r.account.down.Store(f[0] == lostRequest)
			r.push(a)
			if f[0] == lostRequest {
				r.until("the batch is in the outbox", func() bool {
					has, err := state.Has(r.state, state.RecordsOutbox)
					return err == nil && has
				})
			}
			r.reopen(nil)
			r.wantUsage("a crash", owner, 3, 1003)
		})
	}
}

// Usage of a state of an earlier version is counted at start, also after a crash.
func TestUsageOfEarlierVersion(t *testing.T) {
	t.Parallel()
	for _, interrupted := range []string{"never", "at once", "halfway"} {
		t.Run(interrupted, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			r.push(withLayers("a", map[string]int64{"os": 1000, "a": 1}))
			r.push(withLayers("b", map[string]int64{"os": 1000, "b": 2}))
			r.notify(notificationOf(withLayers("c", map[string]int64{"c": 7}), alice))
			r.drain()
			r.stopSinks()
			r.forgetUsage()
			// The earlier version stops while it sends a batch.
			r.account.down.Store(true)
			if interrupted != "never" {
				r.interruptUsage(interrupted == "halfway")
			}
			r.reopen(nil)
			r.push(withLayers("d", map[string]int64{"d": 4}))
			r.wantUsage("after the start", owner, 4, 1007)
			r.wantUsage("after the start", alice, 1, 7)
		})
	}
}

// forgetUsage makes the state that of an earlier version, which kept no usage.
func (r *rig) forgetUsage() {
	r.t.Helper()
	var b state.Batch
	r.usage.Clear(&b)
	b.Delete(state.UsageBuilt)
	if err := r.state.Commit(&b, state.Sync); err != nil {
		r.t.Fatal(err)
	}
}

// interruptUsage counts the first manifests, and commits half a step or none.
func (r *rig) interruptUsage(committed bool) {
	r.t.Helper()
	errCrash := errors.New("crash")
	var b state.Batch
	err := records.EachWritten(r.t.Context(), r.Notifier.account, "", func(push []records.Layer) error {
		if _, err := r.usage.Add(&b, push[0].Owner, push[0].Manifest, records.UsageOf(push)); err != nil {
			return err
		}
		b.Set(state.UsageBuilt, []byte(push[len(push)-1].RKey))
		return errCrash
	})
	if err != errCrash {
		r.t.Fatal(err)
	}
	if committed {
		if err := r.state.Commit(&b, state.Sync); err != nil {
			r.t.Fatal(err)
		}
	}
}

func TestRecountUsage(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	a := withLayers("a", map[string]int64{"os": 1000, "a": 1})
	r.push(a)
	r.push(withLayers("b", map[string]int64{"os": 1000, "b": 2}))
	r.drain()
	r.stopSinks()
	var b state.Batch
	if _, err := r.usage.Remove(&b, owner, a.Digest); err != nil {
		t.Fatal(err)
	}
	if err := r.state.Commit(&b, state.Sync); err != nil {
		t.Fatal(err)
	}
	found := func(dryRun bool) (n int) {
		if err := r.stores.RecountUsage(t.Context(), dryRun, nil, func(usage.Difference) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	const rows = 4 // the manifest, two layers, the total
	for _, step := range []struct {
		dryRun bool
		want   int
	}{{true, rows}, {false, rows}, {true, 0}} {
		if got := found(step.dryRun); got != step.want {
			t.Errorf("dry run %v: %d differences, want %d", step.dryRun, got, step.want)
		}
	}
	if total, err := r.usage.Total(owner); total != (usage.Total{Blobs: 3, Bytes: 1003}) || err != nil {
		t.Errorf("got %+v, %v", total, err)
	}
	if err := r.state.Scan(state.Prefix(state.Recount), func(key, _ []byte) error { return fmt.Errorf("row %q", key) }); err != nil {
		t.Errorf("rows of the recount are left: %v", err)
	}
}

// After random pushes, deletes, flips to private, faults and restarts, a recount finds no
// difference.
func TestUsageRandom(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 2))
			r := newRig(t, nil)
			images := make([]Push, 8)
			for i := range images {
				sizes := map[string]int64{}
				for range 1 + random.IntN(4) {
					n := random.IntN(8)
					sizes[fmt.Sprint("layer ", n)] = int64(100 * n)
				}
				images[i] = withLayers(fmt.Sprint("image ", i), sizes)
			}
			for range 60 {
				p := images[random.IntN(len(images))].as([]string{"oss/app", "oss/other", "secret/app"}[random.IntN(3)], "")
				did := []string{alice, bob}[random.IntN(2)]
				switch random.IntN(8) {
				case 0, 1, 2:
					r.push(p)
				case 3, 4:
					r.delete(p)
				case 5:
					r.notifyCanceled(notificationOf(p, did))
				case 6:
					r.notifyCanceled(notificationOf(p, did).as(lexicon.VisibilityPrivate))
				case 7:
					r.account.fail([]fault{lostRequest, lostAnswer, noFault}[random.IntN(3)])
				}
				if random.IntN(20) == 0 {
					r.account.heal()
					r.reopen(nil)
				}
			}
			r.account.heal()
			r.drain()
			r.exactUsage()
			want := map[string]bool{}
			if err := r.ledger.All(func(did, _ string, _ ledger.Entry) error { want[did] = true; return nil }); err != nil {
				t.Fatal(err)
			}
			for did := range want {
				if total, err := r.usage.Total(did); err != nil || total.Blobs == 0 {
					t.Errorf("%s has %+v, %v", did, total, err)
				}
			}
		})
	}
}

// A recount reads the account's records in pages: its memory does not grow with their
// number.
func TestRecountUsageMemory(t *testing.T) {
	manifests, layers := 10_000, 10
	if race.Enabled {
		manifests /= 10
	}
	r := newRig(t, nil)
	r.stopSinks()
	listed := &listedRecords{Publisher: r.Notifier.account.Publisher, manifests: manifests, layers: layers}
	r.Notifier.account.Publisher = listed
	var b state.Batch
	for m := range manifests {
		r.ledger.Put(&b, owner, listed.manifest(m), ledger.Entry{First: listed.first(m), ClockID: 1, Records: layers, Repositories: []string{"oss/app"}})
	}
	b.Delete(state.UsageBuilt)
	if err := r.state.Commit(&b, state.Sync); err != nil {
		t.Fatal(err)
	}
	b = state.Batch{}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	most := uint64(0)
	listed.listed = func() {
		runtime.GC()
		runtime.ReadMemStats(&after)
		most = max(most, after.HeapAlloc)
	}
	started := time.Now()
	n := 0
	if err := r.stores.RecountUsage(t.Context(), false, nil, func(usage.Difference) error { n++; return nil }); err != nil || n == 0 {
		t.Errorf("%d differences, %v", n, err)
	}
	t.Logf("%d layers were counted in %s, at most %d kB more in use", manifests*layers, time.Since(started).Round(time.Millisecond), (max(most, before.HeapAlloc)-before.HeapAlloc)>>10)
	if most > before.HeapAlloc+24<<20 {
		t.Errorf("the heap grew from %d to %d bytes", before.HeapAlloc, most)
	}
	// Of ten layers of a manifest, nine are its own.
	if total, err := r.usage.Total(owner); err != nil || total.Blobs != int64(manifests*(layers-1)+1) {
		t.Errorf("got %+v, %v", total, err)
	}
}

// listedRecords is an account with many layer records, which are computed when they are
// listed.
type listedRecords struct {
	delivery.Publisher
	manifests, layers int
	listed            func()
	pages             int
}

func (l *listedRecords) manifest(m int) string {
	return digest.FromString(fmt.Sprint("manifest ", m)).String()
}

func (l *listedRecords) first(m int) int64 { return 1_800_000_000_000_000 + int64(m)*100 }

func (l *listedRecords) List(_ context.Context, _, cursor string, limit int, _ bool) (page []repo.Record, next string, err error) {
	if l.pages++; l.pages%10 == 0 {
		l.listed()
	}
	from := 0
	if cursor != "" {
		key, err := syntax.ParseTID(cursor)
		if err != nil {
			return nil, "", err
		}
		after := key.Time().UnixMicro() - l.first(0) - 1
		from = int(after/100)*l.layers + int(after%100) + 1
	}
	for i := from; i < l.manifests*l.layers && len(page) < limit; i++ {
		m, k := i/l.layers, i%l.layers
		layer := event.Layer{Digest: digest.FromString(fmt.Sprint(m, " layer ", k)).String(), Size: int64(k), MediaType: "application/vnd.oci.image.layer.v1.tar"}
		if k == 0 {
			layer.Digest = digest.FromString("shared").String()
		}
		e := ledger.Entry{First: l.first(m) + int64(k), ClockID: 1}
		writes, err := records.Creates(owner, l.manifest(m), []event.Layer{layer}, e)
		if err != nil {
			return nil, "", err
		}
		page = append(page, repo.Record{RKey: writes[0].RKey, Value: writes[0].Record})
	}
	if from+len(page) < l.manifests*l.layers {
		next = page[len(page)-1].RKey
	}
	return page, next, nil
}
