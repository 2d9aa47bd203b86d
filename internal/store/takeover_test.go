package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// oldBatches is the number of batches in testdata/oldlog, which a program with a log
// of its own wrote and did not close: 8 are in tables, all are in log-0. (Zeros at
// the end of log-0 were cut off.)
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

// TestTakeOver opens a database with a log of the old format: read-only first, then
// to be written. An older program refuses it afterwards.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	disk := oldDatabase(t)
	reader := newFormat(disk)
	reader.ReadOnly = true
	for _, cfg := range []Config{reader, newFormat(disk), newFormat(disk), reader} {
		s := open(t, cfg)
		if got := last(t, s); got != oldBatches || s.Damage() != nil {
			t.Errorf("read-only %t: %d batches, %v", cfg.ReadOnly, got, s.Damage())
		}
		if !cfg.ReadOnly {
			for _, key := range [][]byte{keyOldSalt, keyOldLogged} {
				if _, err := Read(s, key); !errors.Is(err, pebble.ErrNotFound) {
					t.Errorf("%s: %v", key, err)
				}
			}
			if names := oldFiles(t, disk); len(names) > 0 {
				t.Errorf("files %q are left", names)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(testConfig(disk)); !errors.Is(err, ErrNewer) {
		t.Errorf("an older program: %v", err)
	}
}

// TestTakeOverCrash fails the disk at each write in turn and cuts the power: the next
// Open has all batches.
func TestTakeOverCrash(t *testing.T) {
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
		cfg.MemTable = 16 << 10 // for flushes in between
		s, err := Open(cfg)
		for _, unsynced := range []int{0, 100} {
			after := disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: unsynced, RNG: rand.New(rand.NewPCG(1, 1))})
			again := open(t, newFormat(after))
			if got := last(t, again); got != oldBatches {
				t.Errorf("after %d writes: %d batches", n, got)
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

// TestTakeOverDamage damages the old log: an error of Open, and a read-only Open has
// what was before.
func TestTakeOverDamage(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		change func(disk *vfs.MemFS)
		want   int
	}{
		{"first record", func(disk *vfs.MemFS) { flip(t, disk, "db/log-0", 100) }, 8}, // which is in tables
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
				t.Errorf("%s: %d batches, %v and %v", tc.name, seen, damage, err)
			}
			continue
		}
		if !errors.Is(damage, ErrLog) || !errors.Is(err, ErrLog) || tc.want > 0 && seen != tc.want || seen < 8 || seen > 29 {
			t.Errorf("%s: %d batches, %v and %v", tc.name, seen, damage, err)
		}
	}
}

// TestTakeOverFiles reads a log of several files, whose order is that of their
// batches.
func TestTakeOverFiles(t *testing.T) {
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
		t.Errorf("%d batches", got)
	}
	s.Close()
	disk = oldDatabase(t)
	if err := disk.Rename("db/log-0", "db/log-1"); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(newFormat(disk)); !errors.Is(err, ErrLog) {
		t.Errorf("the first file is missing: %v", err)
	}
}
