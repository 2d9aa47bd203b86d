package store

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tidings-dev/tidings/internal/race"
)

// clone copies a database, so that a test can damage it.
func clone(t testing.TB, disk vfs.FS) *vfs.MemFS {
	t.Helper()
	after := vfs.NewMem()
	if ok, err := vfs.Clone(disk, after, "db", "db"); err != nil || !ok {
		t.Fatal(ok, err)
	}
	return after
}

// flip changes a bit of a file.
func flip(t testing.TB, fs vfs.FS, path string, at int64) {
	t.Helper()
	f, err := fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

// wals returns the paths of the WALs that are not empty, in the order of their numbers.
func wals(t testing.TB, fs vfs.FS) (paths []string) {
	t.Helper()
	names, err := fs.List("db")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !strings.HasSuffix(name, ".log") {
			continue
		}
		if info, err := fs.Stat("db/" + name); err != nil || info.Size() > 0 {
			paths = append(paths, "db/"+name)
		}
	}
	slices.Sort(paths)
	return paths
}

func newestWAL(t testing.TB, fs vfs.FS) (path string, content []byte) {
	t.Helper()
	paths := wals(t, fs)
	path = paths[len(paths)-1]
	content, err := readFile(fs, path)
	if err != nil {
		t.Fatal(err)
	}
	return path, content
}

// TestDamagedLog flips bits of the log. In batches that were durable when later ones
// were written, that is an error of Open, and a read-only Open has the batches before
// the damage. In the last batches it looks like a crash.
func TestDamagedLog(t *testing.T) {
	race.Skip(t, "nothing in it runs concurrently")
	t.Parallel()
	for name, tc := range map[string]struct {
		reopened                  bool
		batches, size, step, last int
	}{
		"first WAL":         {false, 20, 100, 97, 1},
		"one block":         {true, 20, 100, 97, 1},
		"several blocks":    {true, 60, 1000, 4099, 2},
		"batches of blocks": {true, 20, 20_000, 90_001, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disk := vfs.NewCrashableMem()
			cfg := testConfig(disk)
			cfg.MemTable = 64 << 20
			s := open(t, cfg)
			if tc.reopened { // the first WAL of a database has no synced offsets
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = open(t, cfg)
			}
			for n := range tc.batches {
				commit(t, s, n+1, tc.size, Sync)
			}
			killed := disk.CrashClone(vfs.CrashCloneCfg{})
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			newest, content := newestWAL(t, killed)
			seenDamage, flips := 0, 0
			for at := 0; at < len(content); at += tc.step {
				flips++
				after := clone(t, killed)
				flip(t, after, newest, int64(at))
				reader := testConfig(after)
				reader.MemTable = cfg.MemTable
				reader.ReadOnly = true
				r := open(t, reader)
				seen, damage := last(t, r), r.Damage()
				r.Close()
				if damage == nil && seen < tc.batches-tc.last {
					t.Errorf("byte %d: %d batches and no damage", at, seen)
				}
				s, err := Open(testConfig(after))
				if damage != nil {
					seenDamage++
					if !errors.Is(damage, ErrLog) || !errors.Is(err, ErrLog) || !IsCorruption(err) {
						t.Errorf("byte %d: damage %v, Open: %v; want ErrLog", at, damage, err)
					}
					continue
				}
				if err != nil {
					t.Fatalf("byte %d: %v", at, err)
				}
				if got := last(t, s); got != seen {
					t.Errorf("byte %d: %d batches, but %d read-only", at, got, seen)
				}
				s.Close()
			}
			if seenDamage < flips*3/4 {
				t.Errorf("%d of %d damages are detected, want most", seenDamage, flips)
			}
		})
	}
}

// TestDamagedOlderLog damages a WAL that is not the newest.
func TestDamagedOlderLog(t *testing.T) {
	race.Skip(t, "nothing in it runs concurrently")
	t.Parallel()
	disk := vfs.NewCrashableMem()
	cfg := testConfig(disk)
	cfg.MemTable = 1 << 20
	s := open(t, cfg)
	s.db.Close()
	s = open(t, cfg)
	const batches = 40
	for n := range batches {
		commit(t, s, n+1, 50_000, Sync)
	}
	killed := disk.CrashClone(vfs.CrashCloneCfg{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	damaged := 0
	for _, path := range wals(t, killed) {
		after := clone(t, killed)
		flip(t, after, path, 40_000)
		reader := testConfig(after)
		reader.ReadOnly = true
		r := open(t, reader)
		if seen := last(t, r); (seen == batches) != (r.Damage() == nil) {
			t.Errorf("%s: %d batches of %d, damage %v", path, seen, batches, r.Damage())
		}
		if r.Damage() != nil {
			damaged++
		}
		r.Close()
		if s, err := Open(testConfig(after)); errors.Is(err, ErrLog) == (r.Damage() == nil) {
			t.Errorf("%s: damage %v, but Open: %v", path, r.Damage(), err)
		} else if err == nil {
			s.Close()
		}
	}
	if damaged == 0 {
		t.Error("no damage was detected")
	}
}

// TestTornLog truncates the newest WAL: a prefix of the batches is left, and the
// database can be opened.
func TestTornLog(t *testing.T) {
	race.Skip(t, "nothing in it runs concurrently")
	t.Parallel()
	disk := vfs.NewCrashableMem()
	s := open(t, testConfig(disk))
	for n := range 20 {
		commit(t, s, n+1, 5000, Sync)
	}
	killed := disk.CrashClone(vfs.CrashCloneCfg{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	path, content := newestWAL(t, killed)
	before := 0
	for size := 0; size < len(content); size += 1009 {
		after := clone(t, killed)
		f, err := after.Create(path, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		f.Write(content[:size])
		f.Close()
		s := open(t, testConfig(after))
		n := last(t, s)
		if n < before {
			t.Errorf("%d bytes: %d batches, but %d with fewer bytes", size, n, before)
		}
		before = n
		s.Close()
	}
}

func FuzzReadWAL(f *testing.F) {
	disk := vfs.NewCrashableMem()
	s := open(f, testConfig(disk))
	for n := range 3 {
		commit(f, s, n+1, 20_000, Sync)
	}
	killed := disk.CrashClone(vfs.CrashCloneCfg{})
	path, content := newestWAL(f, killed)
	s.Close()
	f.Add(content)
	f.Add(content[:len(content)-9])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, content []byte) {
		fs := vfs.NewMem()
		file, err := fs.Create(fs.PathBase(path), vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		file.Write(content)
		file.Close()
		end, damaged, err := readWAL(fs, fs.PathBase(path))
		if err != nil || damaged && end == nil || end != nil && end.offset > int64(len(content)) {
			t.Fatalf("readWAL = %+v, %v, %v", end, damaged, err)
		}
	})
}
