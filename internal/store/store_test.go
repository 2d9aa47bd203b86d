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

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
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

// batch n sets three keys to n: one of its own, one that others set too, and
// one that each sets.
func commit(t testing.TB, s *Store, n int, size int, options *pebble.WriteOptions) {
	t.Helper()
	val := make([]byte, max(8, size))
	binary.BigEndian.PutUint64(val, uint64(n))
	b := s.NewBatch()
	for _, key := range []string{fmt.Sprint("own", n), fmt.Sprint("shared", n%10), "last"} {
		if err := b.Set([]byte(key), val, nil); err != nil {
			t.Fatal(err)
		}
	}
	if n%7 == 0 {
		if err := b.DeleteRange([]byte("shared"), []byte("shared5"), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Commit(b, options); err != nil {
		t.Fatal(err)
	}
}

// last checks that what can be read is what batches 1 to n make, for some n,
// and returns it.
func last(t testing.TB, r pebble.Reader) int {
	t.Helper()
	get := func(key string) int {
		val, err := Read(r, []byte(key))
		if errors.Is(err, pebble.ErrNotFound) {
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
			t.Fatalf("of %d batches number %d has left %d", n, i, got)
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
			t.Fatalf("after %d batches %s is %d, not %d", n, key, get(key), want[key])
		}
	}
	if got := get(fmt.Sprint("own", n+1)); got != 0 {
		t.Fatalf("half of batch %d is there", n+1)
	}
	return n
}

func logFiles(t testing.TB, cfg Config) (names []string) {
	t.Helper()
	all, err := cfg.FS.List(cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		if strings.HasPrefix(name, logPrefix) {
			names = append(names, name)
		}
	}
	return names
}

// inLog makes a database of which nothing is in tables yet.
func inLog(t testing.TB, fs vfs.FS, batches int) Config {
	t.Helper()
	cfg := testConfig(fs)
	cfg.MemTable = 64 << 20
	s := open(t, cfg)
	for n := range batches {
		commit(t, s, n+1, 50_000, pebble.Sync)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// TestPowerCut cuts the power at arbitrary moments: a prefix of the batches is
// there, with all that were synced. Where only the process was killed all are
// there, and stay when the power is cut later.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 1))
			disk := vfs.NewCrashableMem()
			n := 0
			for range 6 {
				s := open(t, testConfig(disk))
				if got := last(t, s); got != n {
					t.Fatalf("%d batches of %d", got, n)
				}
				synced := n
				for range rng.IntN(60) {
					n++
					options := pebble.NoSync
					if rng.IntN(3) > 0 {
						options, synced = pebble.Sync, n
					}
					size := rng.IntN(2000)
					if rng.IntN(40) == 0 {
						size = rng.IntN(600_000) // larger than a memtable, and much of a file
					}
					commit(t, s, n, size, options)
				}
				if rng.IntN(3) == 0 {
					s.DB.Close() // and not the log
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
					t.Fatalf("%d batches of %d, %d of them synced: %v", seen, n, synced, r.Damage())
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
				t.Errorf("%d batches, and %d when read before", got, n)
			}
		})
	}
}

// TestLogFiles: the log's files are written again and again, also by the next
// process, and the tables with what isn't in them any more are whole.
func TestLogFiles(t *testing.T) {
	t.Parallel()
	cfg := testConfig(vfs.Default)
	cfg.Dir = t.TempDir()
	n := 0
	for range 2 {
		s := open(t, cfg)
		for range 40 {
			n++
			commit(t, s, n, 150_000, pebble.NoSync)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if names := logFiles(t, cfg); len(names) < 2 || len(names) > 6 {
		t.Errorf("36 MB were written to %q", names)
	}
	s := open(t, cfg)
	defer s.Close()
	if got := last(t, s); got != n {
		t.Errorf("%d batches of %d", got, n)
	}
}

// TestTogether commits from many goroutines at once.
func TestTogether(t *testing.T) {
	t.Parallel()
	disk := vfs.NewCrashableMem()
	s := open(t, testConfig(disk))
	var wg sync.WaitGroup
	for c := range 8 {
		wg.Go(func() {
			for i := range 50 {
				if err := s.Set(fmt.Appendf(nil, "k%d-%d", c, i), []byte("x"), pebble.Sync); err != nil {
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

// TestFailedWrite fails a write or an fsync of the log: the batch is refused, so
// are all later ones, and the next process has all before.
func TestFailedWrite(t *testing.T) {
	t.Parallel()
	for _, kind := range []errorfs.OpKind{errorfs.OpFileWriteAt, errorfs.OpFileSyncTo, errorfs.OpFileSyncData} {
		disk := vfs.NewCrashableMem()
		var armed atomic.Bool
		s := open(t, testConfig(errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if armed.Load() && op.Kind == kind {
				return errDisk
			}
			return nil
		}))))
		commit(t, s, 1, 0, pebble.Sync)
		armed.Store(true)
		for range 2 {
			err := s.Set([]byte("k"), []byte("x"), pebble.Sync)
			if !errors.Is(err, ErrStopped) || !errors.Is(err, errDisk) {
				t.Errorf("%v: %v", kind, err)
			}
		}
		select {
		case <-s.Dead():
		default:
			t.Errorf("%v: not dead", kind)
		}
		s = open(t, testConfig(disk.CrashClone(vfs.CrashCloneCfg{})))
		if got := last(t, s); got != 1 {
			t.Errorf("%v: %d batches", kind, got)
		}
		s.Close()
	}
}

// TestDamagedLog changes a byte of the log here and there. In what was durable
// before later batches were written that is an error, and a reader gets what was
// before; a change in the last batch can't be told from one that was cut short.
func TestDamagedLog(t *testing.T) {
	t.Parallel()
	const batches = 20
	disk := vfs.NewMem()
	s := open(t, testConfig(disk))
	for n := range batches {
		commit(t, s, n+1, 100, pebble.Sync)
	}
	end, begin := s.wal.at, int64(len(appendRecord(nil, 1, 1, 0, nil)))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	names := logFiles(t, testConfig(disk))
	if len(names) != 1 {
		t.Fatal(names)
	}
	path := disk.PathJoin("db", names[0])
	damaged := 0
	for at := int64(0); at < end; at += 97 {
		after := vfs.NewMem()
		if ok, err := vfs.Clone(disk, after, "db", "db"); err != nil || !ok {
			t.Fatal(ok, err)
		}
		f, err := after.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		var b [1]byte
		if _, err := f.ReadAt(b[:], at); err != nil {
			t.Fatal(err)
		}
		b[0] ^= 1
		if _, err := f.WriteAt(b[:], at); err != nil {
			t.Fatal(err)
		}
		f.Close()
		reader := testConfig(after)
		reader.ReadOnly = true
		r := open(t, reader)
		seen := last(t, r)
		damage := r.Damage()
		r.Close()
		s, err := Open(testConfig(after))
		switch {
		case seen == batches: // padding
		case seen == batches-1 && damage == nil: // the last
		case damage == nil || !errors.Is(damage, ErrLog):
			t.Errorf("byte %d: %d batches, %v", at, seen, damage)
		default:
			damaged++
			if !errors.Is(err, ErrLog) || !strings.Contains(err.Error(), fmt.Sprint("batch ", seen+1)) {
				t.Errorf("byte %d: %v", at, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("byte %d: %v", at, err)
		}
		if got := last(t, s); got != seen {
			t.Errorf("byte %d: %d batches, %d for a reader", at, got, seen)
		}
		s.Close()
	}
	if most := int((end - begin) / 97); damaged < most*3/4 {
		t.Errorf("damage was seen %d times of %d", damaged, most)
	}
}

// TestDamagedFormat: where the block of the format number is damaged, a reader
// still gets what only the log has.
func TestDamagedFormat(t *testing.T) {
	t.Parallel()
	disk := vfs.NewCrashableMem()
	s := open(t, testConfig(disk))
	const inTables, batches = 20, 25
	for n := range inTables {
		commit(t, s, n+1, 4000, pebble.Sync)
	}
	if err := s.Compact(t.Context(), []byte("a"), []byte("~~"), false); err != nil {
		t.Fatal(err)
	}
	for n := inTables; n < batches; n++ {
		commit(t, s, n+1, 100, pebble.Sync)
	}
	levels, err := s.SSTables()
	if err != nil {
		t.Fatal(err)
	}
	tables := slices.Concat(levels...)
	if len(tables) != 1 {
		t.Fatal(tables)
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
	if _, err := Read(r, cfg.FormatKey); !pebble.IsCorruptionError(err) {
		t.Fatal("the format number can be read:", err)
	}
	if !pebble.IsCorruptionError(r.Damage()) {
		t.Error(r.Damage())
	}
	for n := inTables; n < batches; n++ {
		if _, err := Read(r, fmt.Append([]byte("own"), n+1)); err != nil {
			t.Errorf("batch %d: %v", n+1, err)
		}
	}
}

// TestStaleRecord: a power cut takes back two batches that were not synced and
// leaves the record of the second on the disk. When the next process has written
// another batch in the place of the first, the second does not come back.
func TestStaleRecord(t *testing.T) {
	t.Parallel()
	disk := vfs.NewCrashableMem()
	s := open(t, testConfig(disk))
	for _, key := range []string{"first", "second"} {
		if err := s.Set([]byte(key), make([]byte, 5000), pebble.NoSync); err != nil {
			t.Fatal(err)
		}
	}
	cut := disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := cut.OpenReadWrite("db/log-0", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(make([]byte, 4096), 0); err != nil {
		t.Fatal(err)
	}
	f.Close()
	s = open(t, testConfig(cut))
	if err := s.Set([]byte("other"), make([]byte, 5000), pebble.Sync); err != nil {
		t.Fatal(err)
	}
	killed := cut.CrashClone(vfs.CrashCloneCfg{})
	s.Close()
	s = open(t, testConfig(killed))
	defer s.Close()
	for key, want := range map[string]bool{"first": false, "second": false, "other": true} {
		if _, err := Read(s, []byte(key)); (err == nil) != want {
			t.Errorf("%s: %v", key, err)
		}
	}
}

// TestFullDisk opens a database whose log holds more than memory does, and one
// of an older program, while tables can't be written: an error, not a wait
// without end.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	full := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpCreate && strings.HasSuffix(op.Path, ".sst") {
			return errDisk
		}
		return nil
	})
	disk := vfs.NewCrashableMem()
	inLog(t, disk, 60)
	older := vfs.NewMem()
	db, err := pebble.Open("db", &pebble.Options{FS: older, FormatMajorVersion: pebble.FormatNewest, Logger: pebbleLog{&Store{log: slog.New(slog.DiscardHandler)}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Set([]byte("k"), []byte("x"), pebble.Sync); err != nil {
		t.Fatal(err)
	}
	db.Close()
	for name, disk := range map[string]vfs.FS{"large": disk, "older": older} {
		if _, err := Open(testConfig(errorfs.Wrap(disk, full))); !errors.Is(err, errDisk) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s := open(t, testConfig(disk.CrashClone(vfs.CrashCloneCfg{})))
	defer s.Close()
	if got := last(t, s); got != 60 {
		t.Errorf("%d batches when the disk is well", got)
	}
}

// TestLostFile: a file of the log that is gone is damage, not an earlier state.
func TestLostFile(t *testing.T) {
	t.Parallel()
	disk := vfs.NewMem()
	cfg := inLog(t, disk, 90)
	if names := logFiles(t, cfg); len(names) < 3 {
		t.Fatal(names)
	}
	if err := disk.Remove("db/log-1"); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(cfg); !errors.Is(err, ErrLog) {
		t.Errorf("a file: %v", err)
	}

	cfg = testConfig(vfs.NewMem())
	s := open(t, cfg)
	for n := range 90 {
		commit(t, s, n+1, 5_000, pebble.Sync) // some come to tables
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range logFiles(t, cfg) {
		if err := cfg.FS.Remove("db/" + name); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(cfg); !errors.Is(err, ErrLog) {
		t.Errorf("all files: %v", err)
	}
}

// TestOlderProgram opens what a program without a log of its own has left: its
// batches are there, and it would now refuse to open the database.
func TestOlderProgram(t *testing.T) {
	t.Parallel()
	disk := vfs.NewCrashableMem()
	db, err := pebble.Open("db", &pebble.Options{FS: disk, FormatMajorVersion: pebble.FormatNewest, Logger: pebbleLog{&Store{log: slog.New(slog.DiscardHandler)}}})
	if err != nil {
		t.Fatal(err)
	}
	for key, val := range map[string]string{"f": "\x00\x00\x00\x06", "k": "x"} {
		if err := db.Set([]byte(key), []byte(val), pebble.Sync); err != nil {
			t.Fatal(err)
		}
	}
	after := disk.CrashClone(vfs.CrashCloneCfg{})
	db.Close()
	reader := testConfig(after)
	reader.ReadOnly = true
	for _, cfg := range []Config{reader, testConfig(after), reader} {
		s := open(t, cfg)
		if _, err := Read(s, []byte("k")); err != nil {
			t.Errorf("read only %t: %v", cfg.ReadOnly, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	older := testConfig(after.CrashClone(vfs.CrashCloneCfg{}))
	older.Format = 6
	if _, err := Open(older); !errors.Is(err, ErrNewer) {
		t.Errorf("an older program: %v", err)
	}
}

func FuzzLog(f *testing.F) {
	var log []byte
	for n := range uint64(3) {
		log = appendRecord(log, 9, n+1, n, []byte("batch"))
	}
	f.Add(log)
	f.Add(log[:len(log)-9])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, content []byte) {
		disk := vfs.NewMem()
		if err := disk.MkdirAll("db", 0o700); err != nil {
			t.Fatal(err)
		}
		file, err := disk.Create("db/log-0", vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.Write(content); err != nil {
			t.Fatal(err)
		}
		file.Close()
		given := 0
		r := &logReader{fs: disk, dir: "db", salt: 9, next: 1, each: func(b []byte) error { given += len(b); return nil }}
		if _, err := r.read(); err != nil && !errors.Is(err, ErrLog) {
			t.Fatal(err)
		}
		if given > len(content) {
			t.Errorf("%d bytes of batches in %d", given, len(content))
		}
	})
}

// TestOpenFullDisk opens a database on a real file system while the disk takes
// no table: an error that says so, and once there is room the same process opens
// it, with all that was in the log.
func TestOpenFullDisk(t *testing.T) {
	t.Parallel()
	for _, kind := range []errorfs.OpKind{errorfs.OpCreate, errorfs.OpFileWrite, errorfs.OpFileClose, errorfs.OpFileSync} {
		for _, suffix := range []string{".sst", ""} {
			t.Run(fmt.Sprint(kind, suffix), func(t *testing.T) {
				t.Parallel()
				cfg := inLogAt(t, t.TempDir())
				cfg.MemTable = 256 << 10
				healthy := cfg.FS
				var failed atomic.Int64
				cfg.FS = errorfs.Wrap(healthy, errorfs.InjectorFunc(func(op errorfs.Op) error {
					manifest := strings.Contains(op.Path, "MANIFEST") // without which Pebble keeps its lock
					if op.Kind == kind && strings.HasSuffix(op.Path, suffix) && !manifest {
						failed.Add(1)
						return syscall.ENOSPC
					}
					return nil
				}))
				for range 3 {
					if s, err := Open(cfg); err == nil {
						s.Close()
						if failed.Load() > 0 {
							t.Error("no error")
						}
					} else if !errors.Is(err, syscall.ENOSPC) {
						t.Error(err)
					}
				}
				cfg.FS = healthy
				s := open(t, cfg)
				defer s.Close()
				if got := last(t, s); got != 60 {
					t.Errorf("%d batches when there is room", got)
				}
			})
		}
	}
}

func inLogAt(t testing.TB, dir string) Config {
	t.Helper()
	cfg := testConfig(vfs.Default)
	cfg.Dir = dir
	cfg.MemTable = 64 << 20
	s := open(t, cfg)
	for n := range 60 {
		commit(t, s, n+1, 50_000, pebble.Sync)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// small is a disk with so many bytes free.
type small struct {
	vfs.FS
	free *uint64
}

func (d small) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{AvailBytes: *d.free}, nil
}

// TestNoRoomToOpen: on a disk that may be too full to open a database nothing is
// tried, so that nothing keeps its lock.
func TestNoRoomToOpen(t *testing.T) {
	t.Parallel()
	cfg := inLogAt(t, t.TempDir())
	free := uint64(8 << 20) // the log has 9 MB
	cfg.FS = small{vfs.Default, &free}
	before, err := vfs.Default.List(cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(cfg); !errors.Is(err, ErrNoSpace) {
		t.Errorf("with %d bytes free: %v", free, err)
	}
	if after, err := vfs.Default.List(cfg.Dir); err != nil || !slices.Equal(before, after) {
		t.Errorf("its files were %v and are %v, %v", before, after, err)
	}
	free = 20 << 20
	s := open(t, cfg)
	defer s.Close()
	if got := last(t, s); got != 60 {
		t.Errorf("%d batches when there is room", got)
	}
}

// TestFatalCause: what Pebble formats as text keeps the system's error.
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
