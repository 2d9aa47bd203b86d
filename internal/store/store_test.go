package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/tidings-dev/tidings/internal/race"
)

var errDisk = errors.New("input/output error")

func testConfig(fs vfs.FS) Config {
	return Config{
		Dir: "db", Name: "test", FormatKey: []byte("f"), Format: 7,
		CacheSize: 1 << 20, MemTable: 256 << 10, FS: fs, Logger: slog.New(slog.DiscardHandler),
	}
}

func open(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// commit sets three keys to n: one of its own, one shared with some other batches, and
// one shared with all batches.
func commit(t testing.TB, s *Store, n int, size int, d Durability) {
	t.Helper()
	val := make([]byte, max(8, size))
	binary.BigEndian.PutUint64(val, uint64(n))
	b := s.NewBatch()
	for _, key := range []string{fmt.Sprint("own", n), fmt.Sprint("shared", n%10), "last"} {
		if err := b.Set([]byte(key), val); err != nil {
			t.Fatal(err)
		}
	}
	if n%7 == 0 {
		if err := b.DeleteRange([]byte("shared"), []byte("shared5")); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Commit(b, d); err != nil {
		t.Fatal(err)
	}
}

// last checks that the database contains exactly batches 1 to n, and returns n.
func last(t testing.TB, r Reader) int {
	t.Helper()
	get := func(key string) int {
		val, err := Read(r, []byte(key))
		if errors.Is(err, ErrNotFound) {
			return 0
		}
		if err != nil {
			t.Fatal(err)
		}
		return int(binary.BigEndian.Uint64(val))
	}
	n := get("last")
	want := map[string]int{}
	for i := 1; i <= n; i++ {
		if got := get(fmt.Sprint("own", i)); got != i {
			t.Fatalf("with %d batches, own%d is %d", n, i, got)
		}
		want[fmt.Sprint("shared", i%10)] = i
		if i%7 == 0 {
			for j := range 5 {
				delete(want, fmt.Sprint("shared", j))
			}
		}
	}
	for j := range 10 {
		if key := fmt.Sprint("shared", j); get(key) != want[key] {
			t.Fatalf("with %d batches, %s is %d, want %d", n, key, get(key), want[key])
		}
	}
	if got := get(fmt.Sprint("own", n+1)); got != 0 {
		t.Fatalf("batch %d is incomplete", n+1)
	}
	return n
}

// inLog creates a database whose batches are mostly in its log.
func inLog(t testing.TB, fs vfs.FS, dir string, batches int) Config {
	t.Helper()
	cfg := testConfig(fs)
	cfg.Dir = dir
	cfg.MemTable = 64 << 20
	s := open(t, cfg)
	for n := range batches {
		commit(t, s, n+1, 50_000, Sync)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// TestPowerCut simulates power cuts at random times: a prefix of the batches is left,
// including all synced ones. After Close all are left.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	for seed := range race.Some(uint64(12)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 1))
			disk := vfs.NewCrashableMem()
			n := 0
			for range 6 {
				s := open(t, testConfig(disk))
				if got := last(t, s); got != n {
					t.Fatalf("%d batches after reopening, want %d", got, n)
				}
				synced := n
				for range rng.IntN(60) {
					n++
					options := NoSync
					if rng.IntN(3) > 0 {
						options, synced = Sync, n
					}
					size := rng.IntN(2000)
					if rng.IntN(40) == 0 {
						size = rng.IntN(600_000) // larger than a memtable
					}
					commit(t, s, n, size, options)
				}
				if rng.IntN(3) == 0 {
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
					continue
				}
				var cut vfs.CrashCloneCfg
				if rng.IntN(2) == 0 {
					cut = vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(100), RNG: rng}
				}
				after := disk.CrashClone(cut)
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				reader := testConfig(after)
				reader.ReadOnly = true
				r := open(t, reader)
				seen := last(t, r)
				if r.Damage() != nil || seen < synced || seen > n {
					t.Fatalf("%d batches of %d, of which %d were synced; damage %v", seen, n, synced, r.Damage())
				}
				if err := r.Close(); err != nil {
					t.Fatal(err)
				}
				disk = after
				n = seen
			}
			s := open(t, testConfig(disk))
			defer s.Close()
			if got := last(t, s); got != n {
				t.Errorf("%d batches, but %d read-only", got, n)
			}
		})
	}
}

func TestConcurrentCommits(t *testing.T) {
	t.Parallel()
	disk := vfs.NewCrashableMem()
	s := open(t, testConfig(disk))
	var wg sync.WaitGroup
	for c := range 8 {
		wg.Go(func() {
			for i := range 50 {
				if err := s.Set(fmt.Appendf(nil, "k%d-%d", c, i), []byte("x"), Sync); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	after := disk.CrashClone(vfs.CrashCloneCfg{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, testConfig(after))
	defer s.Close()
	for c := range 8 {
		for i := range 50 {
			if _, err := Read(s, fmt.Appendf(nil, "k%d-%d", c, i)); err != nil {
				t.Fatalf("k%d-%d: %v", c, i, err)
			}
		}
	}
}

// If a write or an fsync of the log fails, the batch and all later ones return an
// error, and the next process has all earlier ones.
func TestFailedWrite(t *testing.T) {
	t.Parallel()
	for _, kind := range []errorfs.OpKind{errorfs.OpFileWrite, errorfs.OpFileSyncData} {
		disk := vfs.NewCrashableMem()
		var armed atomic.Bool
		s := open(t, testConfig(errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if armed.Load() && op.Kind == kind {
				return errDisk
			}
			return nil
		}))))
		commit(t, s, 1, 0, Sync)
		armed.Store(true)
		for range 2 {
			err := s.Set([]byte("k"), []byte("x"), Sync)
			if !errors.Is(err, ErrStopped) || !errors.Is(err, errDisk) {
				t.Errorf("%v fails: Set: %v, want ErrStopped and the error of the disk", kind, err)
			}
		}
		select {
		case <-s.Dead():
		default:
			t.Errorf("%v fails: Dead is open", kind)
		}
		s = open(t, testConfig(disk.CrashClone(vfs.CrashCloneCfg{})))
		if got := last(t, s); got != 1 {
			t.Errorf("%v fails: %d batches, want 1", kind, got)
		}
		s.Close()
	}
}

// If the block of the format number is damaged, a read-only database still has the
// batches that are only in the log.
func TestDamagedFormat(t *testing.T) {
	t.Parallel()
	disk := vfs.NewCrashableMem()
	s := open(t, testConfig(disk))
	const inTables, batches = 20, 25
	for n := range inTables {
		commit(t, s, n+1, 4000, Sync)
	}
	if err := Pebble(s).Compact(t.Context(), []byte("a"), []byte("~~"), false); err != nil {
		t.Fatal(err)
	}
	for n := inTables; n < batches; n++ {
		commit(t, s, n+1, 100, Sync)
	}
	levels, err := Pebble(s).SSTables()
	if err != nil {
		t.Fatal(err)
	}
	tables := slices.Concat(levels...)
	if len(tables) != 1 {
		t.Fatalf("tables are %v, want one", tables)
	}
	after := disk.CrashClone(vfs.CrashCloneCfg{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := after.OpenReadWrite(fmt.Sprintf("db/%s.sst", tables[0].FileNum), vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{0xff, 0xff}, 20); err != nil { // in the first block
		t.Fatal(err)
	}
	f.Close()
	cfg := testConfig(after)
	cfg.ReadOnly = true
	r := open(t, cfg)
	defer r.Close()
	if _, err := Read(r, cfg.FormatKey); !IsCorruption(err) {
		t.Fatalf("Read of the format number: %v, want a corruption error", err)
	}
	if !IsCorruption(r.Damage()) {
		t.Errorf("Damage = %v, want a corruption error", r.Damage())
	}
	for n := inTables; n < batches; n++ {
		if _, err := Read(r, fmt.Append([]byte("own"), n+1)); err != nil {
			t.Errorf("batch %d: %v", n+1, err)
		}
	}
}

// Opening a database with a log returns an error, and does not block, if no table can
// be written.
func TestOpenWithoutTables(t *testing.T) {
	t.Parallel()
	disk := vfs.NewCrashableMem()
	inLog(t, disk, "db", 60)
	_, err := Open(testConfig(errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpCreate && strings.HasSuffix(op.Path, ".sst") {
			return errDisk
		}
		return nil
	}))))
	if !errors.Is(err, errDisk) {
		t.Errorf("Open: %v, want the error of the disk", err)
	}
	s := open(t, testConfig(disk.CrashClone(vfs.CrashCloneCfg{})))
	defer s.Close()
	if got := last(t, s); got != 60 {
		t.Errorf("%d batches once the disk works again, want 60", got)
	}
}

// TestOpenFullDisk opens a database on a real file system while the disk is full. Open
// returns the error; once there is space, the same process can open the database, with
// all batches of the log.
func TestOpenFullDisk(t *testing.T) {
	t.Parallel()
	for _, kind := range []errorfs.OpKind{errorfs.OpCreate, errorfs.OpFileWrite, errorfs.OpFileClose, errorfs.OpFileSync} {
		t.Run(fmt.Sprint(kind), func(t *testing.T) {
			t.Parallel()
			cfg := inLog(t, vfs.Default, t.TempDir(), 60)
			cfg.MemTable = 256 << 10
			healthy := cfg.FS
			var failed atomic.Int64
			cfg.FS = errorfs.Wrap(healthy, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if op.Kind == kind {
					failed.Add(1)
					return syscall.ENOSPC
				}
				return nil
			}))
			for range 3 {
				if s, err := Open(cfg); err == nil {
					s.Close()
					if failed.Load() > 0 {
						t.Error("Open succeeded although an operation failed")
					}
				} else if !errors.Is(err, syscall.ENOSPC) {
					t.Errorf("Open: %v, want ENOSPC", err)
				}
			}
			cfg.FS = healthy
			s := open(t, cfg)
			defer s.Close()
			if got := last(t, s); got != 60 {
				t.Errorf("%d batches once there is space, want 60", got)
			}
		})
	}
}

// A limitedDisk reports a number of free bytes.
type limitedDisk struct {
	vfs.FS
	free *uint64
}

func (d limitedDisk) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{AvailBytes: *d.free}, nil
}

// If the disk may have too little space to open a database, Open returns an error
// before Pebble locks the folder.
func TestNoSpaceToOpen(t *testing.T) {
	t.Parallel()
	cfg := inLog(t, vfs.Default, t.TempDir(), 60)
	free := uint64(8 << 20) // the log has 9 MB
	cfg.FS = limitedDisk{vfs.Default, &free}
	before, err := vfs.Default.List(cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(cfg); !errors.Is(err, ErrNoSpace) {
		t.Errorf("Open with %d bytes free: %v, want ErrNoSpace", free, err)
	}
	if after, err := vfs.Default.List(cfg.Dir); err != nil || !slices.Equal(before, after) {
		t.Errorf("the files were %v and are %v now, %v", before, after, err)
	}
	free = 20 << 20
	s := open(t, cfg)
	defer s.Close()
	if got := last(t, s); got != 60 {
		t.Errorf("%d batches once there is space, want 60", got)
	}
}

// An error that Pebble formats as text still wraps the system's error.
func TestFatalCause(t *testing.T) {
	t.Parallel()
	err := fatal("MANIFEST sync failed: %v", []any{fmt.Errorf("write: %w", syscall.ENOSPC)})
	if !errors.Is(err, syscall.ENOSPC) || err.Error() != "MANIFEST sync failed: write: no space left on device" {
		t.Errorf("got %v", err)
	}
	if err := fatal("unexpected %d", []any{3}); err.Error() != "unexpected 3" {
		t.Errorf("got %v", err)
	}
}
