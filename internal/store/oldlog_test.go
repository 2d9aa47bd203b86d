package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// oldBatches is the number of batches in testdata/oldlog, which an earlier version wrote
// and did not close: 8 are in tables, all are in log-0. (Zeros at the end of log-0 were
// removed.)
const oldBatches = 30

func oldDatabase(t testing.TB) *vfs.MemFS {
	t.Helper()
	disk := vfs.NewMem()
	if ok, err := vfs.Clone(vfs.Default, disk, "testdata/oldlog", "db"); err != nil || !ok {
		t.Fatal(ok, err)
	}
	return disk
}

func syncDir(t testing.TB, fs vfs.FS, dir string) {
	t.Helper()
	d, err := fs.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		t.Fatal(err)
	}
}

func newFormat(fs vfs.FS) Config {
	cfg := testConfig(fs)
	cfg.Format++
	return cfg
}

func oldFiles(t testing.TB, fs vfs.FS) (names []string) {
	t.Helper()
	all, err := fs.List("db")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		if strings.HasPrefix(name, oldLogPrefix) {
			names = append(names, name)
		}
	}
	return names
}

// TestOldLog opens a database with a log of the old format, first read-only, then for
// writing. Then an older program refuses it.
func TestOldLog(t *testing.T) {
	t.Parallel()
	disk := oldDatabase(t)
	reader := newFormat(disk)
	reader.ReadOnly = true
	for _, cfg := range []Config{reader, newFormat(disk), newFormat(disk), reader} {
		s := open(t, cfg)
		if got := last(t, s); got != oldBatches || s.Damage() != nil {
			t.Errorf("read-only %t: %d batches, damage %v; want %d and none", cfg.ReadOnly, got, s.Damage(), oldBatches)
		}
		if !cfg.ReadOnly {
			for _, key := range [][]byte{keyOldSalt, keyOldLogged} {
				if _, err := Read(s, key); !errors.Is(err, ErrNotFound) {
					t.Errorf("Read of %s: %v, want ErrNotFound", key, err)
				}
			}
			if names := oldFiles(t, disk); len(names) > 0 {
				t.Errorf("files %q are left, want none", names)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(testConfig(disk)); !errors.Is(err, ErrNewer) {
		t.Errorf("Open by an older program: %v, want ErrNewer", err)
	}
}

// TestOldLogCrash lets the disk fail at each write in turn, followed by a power cut: the
// next Open has all batches.
func TestOldLogCrash(t *testing.T) {
	t.Parallel()
	for n := int64(0); ; n++ {
		disk := vfs.NewCrashableMem()
		if ok, err := vfs.Clone(vfs.Default, disk, "testdata/oldlog", "db", vfs.CloneSync); err != nil || !ok {
			t.Fatal(ok, err)
		}
		syncDir(t, disk, "")
		var writes atomic.Int64
		cfg := newFormat(errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && writes.Add(1) > n {
				return errDisk
			}
			return nil
		})))
		cfg.MemTable = 16 << 10 // small, for several flushes
		s, err := Open(cfg)
		for _, unsynced := range []int{0, 100} {
			after := disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: unsynced, RNG: rand.New(rand.NewPCG(1, 1))})
			again := open(t, newFormat(after))
			if got := last(t, again); got != oldBatches {
				t.Errorf("power cut after %d writes: %d batches, want %d", n, got, oldBatches)
			}
			again.Close()
		}
		if err == nil {
			s.Close()
			if writes.Load() <= n {
				return // nothing failed
			}
		}
	}
}

// If the old log is damaged, Open returns an error, and a read-only Open has the
// batches before the damage.
func TestDamagedOldLog(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		change func(disk *vfs.MemFS)
		want   int
	}{
		{"first record", func(disk *vfs.MemFS) { flip(t, disk, "db/log-0", 100) }, 8}, // the batches in tables
		{"in the middle", func(disk *vfs.MemFS) { flip(t, disk, "db/log-0", 7000) }, 0},
		{"last record", func(disk *vfs.MemFS) { flip(t, disk, "db/log-0", 9300) }, oldBatches - 1},
		{"no file", func(disk *vfs.MemFS) { disk.Remove("db/log-0") }, 8},
	} {
		disk := oldDatabase(t)
		tc.change(disk)
		reader := newFormat(disk)
		reader.ReadOnly = true
		r := open(t, reader)
		seen, damage := last(t, r), r.Damage()
		r.Close()
		s, err := Open(newFormat(disk))
		if err == nil {
			s.Close()
		}
		if tc.want == oldBatches-1 { // looks like a crash
			if damage != nil || err != nil || seen != tc.want {
				t.Errorf("%s: %d batches, damage %v, Open: %v; want %d and no error", tc.name, seen, damage, err, tc.want)
			}
			continue
		}
		if !errors.Is(damage, ErrLog) || !errors.Is(err, ErrLog) || tc.want > 0 && seen != tc.want || seen < 8 || seen > 29 {
			t.Errorf("%s: %d batches, damage %v, Open: %v; want ErrLog", tc.name, seen, damage, err)
		}
	}
}

// The files of an old log are replayed in the order of their batches.
func TestOldLogFiles(t *testing.T) {
	t.Parallel()
	disk := oldDatabase(t)
	content, err := readFile(disk, "db/log-0")
	if err != nil {
		t.Fatal(err)
	}
	db := open(t, func() Config { c := newFormat(oldDatabase(t)); c.ReadOnly = true; return c }())
	defer db.Close()
	l, err := db.findOldLog()
	if err != nil {
		t.Fatal(err)
	}
	half := 0
	for half < len(content)/2 {
		_, n := l.parse(content[half:])
		half += n
	}
	for i, part := range [][]byte{content[half:], content[:half], {}} {
		f, err := disk.Create(fmt.Sprint("db/log-", i), vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(part); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	s := open(t, newFormat(disk))
	if got := last(t, s); got != oldBatches {
		t.Errorf("%d batches, want %d", got, oldBatches)
	}
	s.Close()
	disk = oldDatabase(t)
	if err := disk.Rename("db/log-0", "db/log-1"); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(newFormat(disk)); !errors.Is(err, ErrLog) {
		t.Errorf("Open without the first file: %v, want ErrLog", err)
	}
}
