package repo

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/mst"
	"github.com/tidings-dev/tidings/atproto/repo/layout"
	"github.com/tidings-dev/tidings/internal/store"
)

var errDisk = errors.New("input/output error")

// One fsync of the log fails, before or after the disk has completed it. In both
// cases the caller gets ErrUnknownOutcome, readers see only durable writes, later
// writes are refused, and the next process opens an intact repo with the write or
// without it.
func TestFailedSync(t *testing.T) {
	t.Parallel()
	for _, applied := range []bool{false, true} {
		t.Run(fmt.Sprintf("applied=%t", applied), func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t)
			disk := vfs.NewCrashableMem()
			var armed atomic.Bool
			cfg.FS = errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if !armed.Load() || !isLogSync(op) {
					return nil
				}
				if applied {
					f, err := disk.OpenReadWrite(op.Path, vfs.WriteCategoryUnspecified)
					if err != nil {
						return err
					}
					defer f.Close()
					if err := f.Sync(); err != nil {
						return err
					}
				}
				return errDisk
			}))
			r := initRepo(t, cfg, profile(), note(Create, "a", "1"))
			before := r.Head()
			armed.Store(true)
			_, err := r.Apply(context.Background(), []Write{note(Create, "b", "1")}, nil)
			if !errors.Is(err, ErrUnknownOutcome) || !strings.Contains(err.Error(), errDisk.Error()) {
				t.Fatalf("got %v", err)
			}
			armed.Store(false)
			if got := r.Head(); got != before {
				t.Errorf("head is %+v", got)
			}
			if _, _, err := r.Get("com.example.note", "b"); !errors.Is(err, ErrNotFound) {
				t.Errorf("the failed write: %v", err)
			}
			if _, err = r.Apply(context.Background(), []Write{note(Create, "c", "1")}, nil); err == nil || !strings.Contains(err.Error(), "restart") {
				t.Errorf("a later write: %v", err)
			}
			if err := r.Health(); err == nil || !strings.Contains(err.Error(), errDisk.Error()) {
				t.Errorf("health: %v", err)
			}
			cfg.FS = disk.CrashClone(vfs.CrashCloneCfg{})
			r.Close() // its error is that of the disk
			m := model{}
			m.apply([]Write{profile(), note(Create, "a", "1")})
			if applied {
				m.apply([]Write{note(Create, "b", "1")})
			}
			r = openRepo(t, cfg)
			checkStore(t, r, m)
			apply(t, r, note(Create, "c", "1"))
		})
	}
}

// After a power failure at any moment the repo is intact and has all answered
// writes.
func TestPowerFailure(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	disk := vfs.NewCrashableMem()
	cfg.FS = disk
	r := initRepo(t, cfg, profile())
	var mu sync.Mutex
	answered := map[string]bool{}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for c := range 6 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				key := fmt.Sprintf("k%d-%d", c, i)
				if _, err := r.Apply(context.Background(), []Write{note(Create, key, key)}, nil); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				answered[key] = true
				mu.Unlock()
			}
		})
	}
	type cut struct {
		disk *vfs.MemFS
		must []string
	}
	var cuts []cut
	for n := range 25 {
		time.Sleep(4 * time.Millisecond)
		mu.Lock()
		must := slices.Collect(maps.Keys(answered))
		mu.Unlock()
		cuts = append(cuts, cut{disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: n * 4, RNG: rand.New(rand.NewPCG(1, uint64(n)))}), must})
	}
	stop()
	wg.Wait()
	for _, c := range cuts {
		next := cfg
		next.FS = c.disk
		checkAfterPowerFailure(t, next, c.must)
	}
	if last := cuts[len(cuts)-1]; len(last.must) < 20 {
		t.Errorf("only %d writes were answered before the last power failure", len(last.must))
	}
}

func checkAfterPowerFailure(t *testing.T, cfg Config, must []string) {
	t.Helper()
	r := openRepo(t, cfg)
	defer r.Close()
	for _, key := range must {
		if _, _, err := r.Get("com.example.note", key); err != nil {
			t.Fatalf("%s, which was answered: %v", key, err)
		}
	}
	m := model{}
	m.apply([]Write{profile()})
	cursor := ""
	for {
		page, next, err := r.List("com.example.note", cursor, 0, false)
		if err != nil {
			t.Fatal(err)
		}
		for _, rec := range page {
			m["com.example.note/"+rec.RKey] = rec.Value
		}
		if cursor = next; cursor == "" {
			break
		}
	}
	checkStore(t, r, m)
	commits := 0
	for _, e := range events(t, r, 0) {
		if isCommit(e) {
			commits++
		}
	}
	if commits != len(m) {
		t.Errorf("%d commits logged for %d records", commits, len(m))
	}
}

// Init fails, or the power fails, at each of its writes to the disk. Then there is
// a complete repo or none, and Init succeeds at the next call.
func TestInitFails(t *testing.T) {
	t.Parallel()
	base := testConfig(t)
	done := false
	for n := int32(0); !done; n++ {
		disk := vfs.NewCrashableMem()
		var left atomic.Int32
		left.Store(n)
		cfg := base
		failed := false
		cfg.FS = errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && left.Add(-1) == -1 {
				failed = true
				return errDisk
			}
			return nil
		}))
		r, err := Init(cfg, []Write{profile()})
		if err == nil {
			r.Close()
		}
		done = !failed
		// The next process, after this one was killed or the power failed.
		for _, unsynced := range []int{100, 0} {
			cfg.FS = disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: unsynced, RNG: rand.New(rand.NewPCG(1, 1))})
			r, err = Open(cfg)
			if errors.Is(err, ErrNotExist) {
				r, err = Init(cfg, []Write{profile()})
			}
			if err != nil {
				t.Fatalf("after write %d failed: %v", n, err)
			}
			if _, _, err := r.Get("app.bsky.actor.profile", "self"); err != nil {
				t.Fatalf("after write %d failed: %v", n, err)
			}
			apply(t, r, note(Create, "a", "1"))
			r.Close()
		}
	}
}

// With a missing node, the write that needs it and the export fail with
// ErrDamaged.
func TestDamage(t *testing.T) {
	t.Parallel()
	r := initRepo(t, testConfig(t), profile())
	for i := range 5 {
		var writes []Write
		for j := range 200 {
			writes = append(writes, note(Create, fmt.Sprintf("k%d-%d", i, j), "x"))
		}
		apply(t, r, writes...)
	}
	r = openAgain(t, r)
	root := r.Head().Data
	data, err := store.Read(r.store, layout.NodeKey(block.DigestOf(root)))
	if err != nil {
		t.Fatal(err)
	}
	var n mst.Node
	if err := n.Parse(block.DigestOf(root), data); err != nil {
		t.Fatal(err)
	}
	if err := deleteKey(r.store, layout.NodeKey(n.Left)); err != nil {
		t.Fatal(err)
	}
	_, err = r.Apply(context.Background(), []Write{note(Update, "k0-0", "y"), {Create, "aaa.example.note", "first", record("x")}}, nil)
	if !errors.Is(err, layout.ErrDamaged) {
		t.Errorf("Apply: %v", err)
	}
	r.publish(r.view.State) // since the snapshot of readers is older than the damage
	if err := r.Export(context.Background(), new(strings.Builder)); !errors.Is(err, layout.ErrDamaged) {
		t.Errorf("Export: %v", err)
	}
}

// A record with changed bytes, which Pebble does not detect, is not returned.
func TestDamagedRecord(t *testing.T) {
	t.Parallel()
	r := initRepo(t, testConfig(t), profile(), note(Create, "a", "one"), note(Create, "b", "two"))
	path := "com.example.note/a"
	val, err := store.Read(r.store, layout.RecordKey(path))
	if err != nil {
		t.Fatal(err)
	}
	val[len(val)-1] ^= 1
	if err := r.store.Set(layout.RecordKey(path), val, store.NoSync); err != nil {
		t.Fatal(err)
	}
	r.publish(r.view.State) // since the snapshot of readers is older than the damage
	if _, _, err := r.Get("com.example.note", "a"); !errors.Is(err, layout.ErrDamaged) || !strings.Contains(err.Error(), path) {
		t.Errorf("Get: %v", err)
	}
	if _, _, err := r.Get("com.example.note", "b"); err != nil {
		t.Errorf("Get of another: %v", err)
	}
	if _, _, err := r.List("com.example.note", "", 0, false); !errors.Is(err, layout.ErrDamaged) {
		t.Errorf("List: %v", err)
	}
	if err := r.Export(context.Background(), new(strings.Builder)); !errors.Is(err, layout.ErrDamaged) {
		t.Errorf("Export: %v", err)
	}
	if _, err := loadBlock(t, r, block.CIDOf(record("one"))); !errors.Is(err, layout.ErrDamaged) {
		t.Errorf("Block: %v", err)
	}
}

// Close returns although the database has failed and a write is blocked by the
// disk.
func TestCloseAfterFailure(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	var armed atomic.Bool
	blocked, release := make(chan bool, 1), make(chan bool)
	cfg.FS = errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch {
		case !armed.Load():
		case isLogSync(op):
			blocked <- true
			<-release
		case strings.Contains(op.Path, "MANIFEST"):
			return errDisk
		}
		return nil
	}))
	r, err := Init(cfg, []Write{profile()})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // two tables to compact, away from what the write changes
		if err := r.store.Set([]byte("zz"), []byte("x"), store.Sync); err != nil {
			t.Fatal(err)
		}
		r = openAgain(t, r)
	}
	armed.Store(true)
	answered := make(chan error)
	go func() {
		_, err := r.Apply(context.Background(), []Write{note(Create, "a", "1")}, nil)
		answered <- err
	}()
	<-blocked
	go store.Pebble(r.store).Compact(context.Background(), []byte("zy"), []byte("zzz"), false) // writes the MANIFEST
	if err := <-answered; !errors.Is(err, ErrUnknownOutcome) || !strings.Contains(err.Error(), errDisk.Error()) {
		t.Errorf("Apply: %v", err)
	}
	if err := r.Close(); !errors.Is(err, store.ErrStopped) {
		t.Errorf("Close: %v", err)
	}
	close(release)
	<-r.stopped
}

// All writes to the disk fail from some moment on. Durable records can be read,
// writes are refused with the reason, and the next process on a working disk
// continues.
func TestFailedDisk(t *testing.T) {
	t.Parallel()
	for _, why := range []error{syscall.EROFS, syscall.EIO, syscall.ENOSPC} {
		t.Run(why.Error(), func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t)
			disk := vfs.NewCrashableMem()
			var dead atomic.Bool
			cfg.FS = errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if dead.Load() && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
					return why
				}
				return nil
			}))
			r := initRepo(t, cfg, profile(), note(Create, "a", "1"))
			dead.Store(true)
			for range 3 {
				_, err := r.Apply(context.Background(), []Write{note(Create, "b", "1")}, nil)
				if err == nil || !strings.Contains(err.Error(), why.Error()) {
					t.Errorf("Apply: %v", err)
				}
			}
			if _, _, err := r.Get("com.example.note", "a"); err != nil {
				t.Errorf("Get: %v", err)
			}
			if _, _, err := r.Get("com.example.note", "b"); !errors.Is(err, ErrNotFound) {
				t.Errorf("Get of a refused record: %v", err)
			}
			if err := r.Export(context.Background(), new(strings.Builder)); err != nil {
				t.Errorf("Export: %v", err)
			}
			if err := r.Health(); err == nil || !strings.Contains(err.Error(), "restart when the disk works again") {
				t.Errorf("health: %v", err)
			}
			cfg.FS = disk.CrashClone(vfs.CrashCloneCfg{})
			m := model{}
			m.apply([]Write{profile(), note(Create, "a", "1")})
			r = openRepo(t, cfg)
			checkStore(t, r, m)
			apply(t, r, note(Create, "b", "1"))
		})
	}
}
