package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tidings-dev/tidings/internal/store"
)

func mustRepair(t testing.TB, cfg RepairConfig) Repaired {
	t.Helper()
	done, err := Repair(context.Background(), cfg)
	if err != nil {
		t.Fatalf("%v; done: %q", err, done.Done)
	}
	return done
}

// sound checks that the repository is clean, holds the model and goes on.
func sound(t testing.TB, cfg Config, m model) *Repo {
	t.Helper()
	if report, lines := verify(t, cfg); len(lines) != 0 || int(report.Records) != len(m) {
		t.Fatalf("%d records, want %d; wrong: %q", report.Records, len(m), lines)
	}
	r := openRepo(t, cfg)
	before := r.Head()
	w := note(Create, "zz-after", "and on")
	apply(t, r, w)
	if now := r.Head(); now.Rev <= before.Rev || now.Seq <= before.Seq {
		t.Errorf("after %+v comes %+v", before, now)
	}
	m.apply([]Write{w})
	checkStore(t, r, m)
	return r
}

// kinds lists the events of a log, and checks each by itself.
func kinds(t testing.TB, cfg Config, r *Repo) (kinds []string) {
	t.Helper()
	for _, e := range events(t, r, 0) {
		kind, _, err := splitFrame(e.Frame)
		if err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, kind)
	}
	return kinds
}

func TestRepairNothing(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	m := filled(t, cfg, 20)
	if done := mustRepair(t, RepairConfig{Config: cfg}); len(done.Done) != 0 || done.Before.Problems != 0 {
		t.Errorf("%+v", done)
	}
	sound(t, cfg, m)
}

// Whatever can be derived is there again: the same records under the same
// signed commit, and a #sync that says so.
func TestRepairDerives(t *testing.T) {
	t.Parallel()
	const path = "com.example.note/k00123"
	for _, tc := range []struct {
		name   string
		change func(t *testing.T, s *store.Store, b *pebble.Batch)
		says   string
		fresh  bool
	}{
		{"all nodes", func(t *testing.T, s *store.Store, b *pebble.Batch) {
			b.DeleteRange([]byte(prefixNode), after(prefixNode), nil)
		}, "", false},
		{"some nodes", func(t *testing.T, s *store.Store, b *pebble.Batch) {
			for i, key := range keysUnder(t, s, prefixNode) {
				if i%3 == 0 {
					b.Delete(key, nil)
				} else if i%3 == 1 {
					flip(t, s, b, key, last)
				}
			}
		}, "", false},
		{"leaked nodes", func(t *testing.T, s *store.Store, b *pebble.Batch) {
			for i := range 50 {
				b.Set(nodeKey(CIDOf(record(fmt.Sprint(i)))), record(fmt.Sprint(i)), nil)
			}
		}, "", false},
		{"the index", func(t *testing.T, s *store.Store, b *pebble.Batch) {
			b.DeleteRange([]byte(prefixIndex), after(prefixIndex), nil)
			b.Set(indexKey(CIDOf(record("x")), path), nil, nil)
		}, "", false},
		{"lost records, from the log", func(t *testing.T, s *store.Store, b *pebble.Batch) {
			b.Delete(recordKey(path), nil)
			flip(t, s, b, recordKey("com.example.note/k00200"), last)
		}, "2 records were taken from the event log", false},
		{"lost records and all nodes", func(t *testing.T, s *store.Store, b *pebble.Batch) {
			b.DeleteRange([]byte(prefixIndex), after(prefixIndex), nil)
			b.Delete(recordKey(path), nil)
		}, "1 records were taken from the event log", false},
		{"a record too many", func(t *testing.T, s *store.Store, b *pebble.Batch) {
			b.Set(recordKey(path+"a"), append(digestOf(CIDOf(record("x"))), record("x")...), nil)
		}, "1 stored records were left out", false},
		{"the head", func(t *testing.T, s *store.Store, b *pebble.Batch) { b.Delete(keyHead, nil) }, "the head was taken from the event log", false},
		{"a bit of the head", func(t *testing.T, s *store.Store, b *pebble.Batch) {
			flip(t, s, b, keyHead, func(n int) int { return n - 80 })
		}, "the head was taken from the event log", false},
		{"a frame", func(t *testing.T, s *store.Store, b *pebble.Batch) {
			flip(t, s, b, keysUnder(t, s, prefixEvent)[4], func(n int) int { return n / 2 })
		}, "the event log begins anew after", false},
		{"the last frame", func(t *testing.T, s *store.Store, b *pebble.Batch) {
			keys := keysUnder(t, s, prefixEvent)
			b.Delete(keys[len(keys)-1], nil)
		}, "the event log begins anew after", false},
		{"all frames and the count", func(t *testing.T, s *store.Store, b *pebble.Batch) {
			b.DeleteRange([]byte(prefixEvent), after(prefixEvent), nil)
			b.Set(keyLost, []byte("?"), nil)
		}, "", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t)
			m := filled(t, cfg, 300)
			before, _ := verify(t, cfg)
			tamper(t, cfg, func(s *store.Store, b *pebble.Batch) { tc.change(t, s, b) })
			done := mustRepair(t, RepairConfig{Config: cfg})
			if !strings.Contains(strings.Join(done.Done, "\n"), tc.says) {
				t.Errorf("does not say %q: %q", tc.says, done.Done)
			}
			if done.Head.Commit != before.Head.Commit || done.Head.Seq <= before.Head.Seq {
				t.Errorf("the head is %+v, was %+v", done.Head, before.Head)
			}
			if !exists(cfg.FS, done.Aside) {
				t.Errorf("nothing is kept in %q", done.Aside)
			}
			r := sound(t, cfg, m)
			if all := kinds(t, cfg, r); len(all) < 2 || all[len(all)-2] != string(Sync) {
				t.Errorf("events %q", all)
			}
		})
	}
}

// What is nowhere is named, and only given up when that is asked for.
func TestRepairLost(t *testing.T) {
	t.Parallel()
	const path = "com.example.note/k00123"
	for _, tc := range []struct {
		name   string
		change func(s *store.Store, b *pebble.Batch)
		says   string
		gone   bool
	}{
		{"a record", func(s *store.Store, b *pebble.Batch) { b.Delete(recordKey(path), nil) }, "1 records are lost: the tree has them, and their bytes are nowhere\n  " + path, true},
		{"a record and the tree", func(s *store.Store, b *pebble.Batch) {
			b.Delete(recordKey(path), nil)
			b.DeleteRange([]byte(prefixNode), after(prefixNode), nil)
		}, "the records make another tree than the one that was signed", true},
		{"the head and the log", func(s *store.Store, b *pebble.Batch) { b.Delete(keyHead, nil) }, "the head is lost, and the event log has none", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t)
			m := filled(t, cfg, 300)
			old, _ := verify(t, cfg)
			tamper(t, cfg, func(s *store.Store, b *pebble.Batch) {
				b.DeleteRange([]byte(prefixEvent), after(prefixEvent), nil)
				tc.change(s, b)
			})
			files, _ := cfg.FS.List("")
			_, err := Repair(context.Background(), RepairConfig{Config: cfg})
			var lost *LostError
			if !errors.As(err, &lost) || !strings.Contains(err.Error(), tc.says) {
				t.Fatalf("got %v, want %q", err, tc.says)
			}
			if now, _ := cfg.FS.List(""); len(now) != len(files) {
				t.Errorf("left behind: %q", now)
			}
			done := mustRepair(t, RepairConfig{Config: cfg, WithoutLost: true})
			if tc.gone {
				delete(m, path)
			}
			if done.Head.Commit == old.Head.Commit || done.Head.Rev <= old.Head.Rev {
				t.Errorf("no fresh commit: %+v after %+v", done.Head, old.Head)
			}
			sound(t, cfg, m)
		})
	}
}

// A boot a year ahead leaves a head that nobody accepts and that cannot be
// followed; repair dates it today. The sequence numbers go on.
func TestRepairClock(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	m := filled(t, cfg, 50)
	ahead := cfg
	ahead.Now = fixedClock(time.Now().AddDate(1, 0, 0))
	r := openRepo(t, ahead)
	w := note(Create, "from-the-future", "a year")
	apply(t, r, w)
	m.apply([]Write{w})
	r.Close()

	r = openRepo(t, cfg)
	if _, err := r.Apply(context.Background(), []Write{note(Create, "x", "x")}, nil); !errors.Is(err, ErrClock) || !strings.Contains(err.Error(), "tidings hold repair") {
		t.Errorf("with the clock right again: %v", err)
	}
	seq := r.Head().Seq
	r.Close()
	done := mustRepair(t, RepairConfig{Config: cfg})
	if done.Aside != "" || done.Head.Seq <= seq || len(done.Done) != 1 {
		t.Errorf("%+v after event %d", done, seq)
	}
	if at, now := (state{Head: done.Head}).ahead(time.Now()), time.Minute; at > now {
		t.Errorf("the rev is %s ahead", at)
	}
	sound(t, cfg, m).Close()

	// A clock that is behind all there is would be mended with as little sense.
	behind := cfg
	behind.Now = fixedClock(time.Now().AddDate(-1, 0, 0))
	if _, err := Repair(context.Background(), RepairConfig{Config: behind}); !errors.Is(err, errClockBehind) {
		t.Errorf("with a clock a year behind: %v", err)
	}
	if done := mustRepair(t, RepairConfig{Config: behind, ClockIsRight: true}); len(done.Done) != 1 {
		t.Errorf("%+v", done)
	}
}

// With a key that signed none of it nothing is touched.
func TestRepairOtherKey(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	filled(t, cfg, 5)
	other := cfg
	other.Key = testKey(t)
	if _, err := Repair(context.Background(), RepairConfig{Config: other, WithoutLost: true}); !errors.Is(err, errOtherKey) {
		t.Fatal(err)
	}
	if _, lines := verify(t, cfg); len(lines) != 0 {
		t.Errorf("%q", lines)
	}
}

// A bit that a disk forgot in a file of the database, wherever it is: Verify
// sees it and says where, Repair gets back all that the event log has.
func TestRepairBitOnDisk(t *testing.T) {
	t.Parallel()
	base := testConfig(t)
	base.FS, base.Dir = vfs.Default, filepath.Join(t.TempDir(), "hold")
	m := filled(t, base, 1500)
	tamper(t, base, func(s *store.Store, _ *pebble.Batch) { // into one file a level
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		if err := s.Compact(context.Background(), []byte{0}, []byte{0xff}, false); err != nil {
			t.Fatal(err)
		}
	})
	tables, err := filepath.Glob(filepath.Join(base.Dir, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatal(err, tables)
	}
	seen := 0
	for i := range 12 {
		cfg := base
		cfg.Dir = filepath.Join(t.TempDir(), "hold")
		if err := os.CopyFS(cfg.Dir, os.DirFS(base.Dir)); err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(cfg.Dir, filepath.Base(tables[i%len(tables)]))
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		at := (len(content) - 4096) / 12 * i
		content[at] ^= 16
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
		var lines []string
		_, err = Verify(context.Background(), cfg, nil, func(p Problem) { lines = append(lines, p.String()) })
		if err != nil {
			t.Fatalf("byte %d of %s: %v", at, name, err)
		}
		if len(lines) == 0 {
			continue // in what no key of ours is in
		}
		seen++
		copied := cfg // for a failed database keeps its lock until the process ends
		copied.Dir = filepath.Join(t.TempDir(), "hold")
		if err := os.CopyFS(copied.Dir, os.DirFS(cfg.Dir)); err != nil {
			t.Fatal(err)
		}
		servesNoLies(t, copied, m)
		done, err := Repair(context.Background(), RepairConfig{Config: cfg})
		var lost *LostError
		if errors.As(err, &lost) {
			// The bytes of records and those of the frames that had them are in
			// one place now and then. They are named, and all others stay.
			left := model{}
			for path, rec := range m {
				left[path] = rec
			}
			done = mustRepair(t, RepairConfig{Config: cfg, WithoutLost: true})
			for _, path := range done.Dropped {
				delete(left, path)
			}
			if len(done.Dropped) > 0 {
				sound(t, cfg, left)
			}
			continue
		}
		if err != nil {
			t.Fatalf("byte %d of %s: %v; wrong: %.3q", at, name, err, lines)
		}
		mine := model{}
		for path, rec := range m {
			mine[path] = rec
		}
		sound(t, cfg, mine)
	}
	t.Logf("%d of 12 bits met something of ours", seen)
	if seen < 6 {
		t.Errorf("only %d of 12 bits were seen", seen)
	}
}

// A bit that a disk forgot in the log, which holds what is not in tables yet:
// the server does not start on an earlier state, Verify says why, and Repair
// gets back all before the bit.
func TestRepairLog(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.FS, cfg.Dir = vfs.Default, filepath.Join(t.TempDir(), "hold")
	filled(t, cfg, 5)
	r := openRepo(t, cfg)
	marks := []string{"first", "second", "third", "fourth"}
	for _, mark := range marks {
		apply(t, r, note(Create, mark, "the text of the "+mark))
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	logs, err := filepath.Glob(filepath.Join(cfg.Dir, "log-*"))
	if err != nil || len(logs) != 1 {
		t.Fatal(err, logs)
	}
	content, err := os.ReadFile(logs[0])
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(content, []byte("the text of the third"))
	if at < 0 {
		t.Fatal("the third record is not in the log")
	}
	content[at] ^= 1
	if err := os.WriteFile(logs[0], content, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(cfg); !errors.Is(err, errDamaged) || !errors.Is(err, store.ErrLog) {
		t.Errorf("Open: %v", err)
	}
	if _, err := ReadStatus(cfg); !errors.Is(err, errDamaged) {
		t.Errorf("ReadStatus: %v", err)
	}
	_, lines := verify(t, cfg)
	if len(lines) != 1 || !strings.HasPrefix(lines[0], string(PartFile)) || !strings.Contains(lines[0], "log") {
		t.Errorf("Verify: %q", lines)
	}
	mustRepair(t, RepairConfig{Config: cfg})
	if report, lines := verify(t, cfg); len(lines) != 0 || report.Records != 8 {
		t.Errorf("after Repair: %d records, %q", report.Records, lines)
	}
	r = openRepo(t, cfg)
	for i, mark := range marks {
		if _, _, err := r.Get("com.example.note", mark); errors.Is(err, ErrNotFound) != (i >= 2) {
			t.Errorf("%s: %v", mark, err)
		}
	}
}

// servesNoLies reads all of a damaged repository as a server does: a right
// record or an error, and once a damaged file was met no more writes.
func servesNoLies(t testing.TB, cfg Config, m model) {
	t.Helper()
	r, err := Open(cfg)
	if err != nil {
		return // refused
	}
	defer r.Close()
	failed := false
	for path, want := range m {
		if _, got, err := r.Get(splitPath(path)); err != nil {
			failed = true
		} else if !bytes.Equal(got, want) {
			t.Errorf("%s is served as %q", path, got)
		}
	}
	if !failed {
		return
	}
	if err := r.Health(); err == nil || !strings.Contains(err.Error(), "repair it or restore a backup") {
		t.Errorf("health is %v", err)
	}
	if _, err := r.Apply(context.Background(), []Write{note(Create, "x", "x")}, nil); err == nil {
		t.Error("it is written to")
	}
}

// Blobs stay with their records, and what is lost of them is said.
func TestRepairBlobs(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	r := initRepo(t, cfg, profile())
	m := model{}
	m.apply([]Write{profile()})
	var blobs []Blob
	for i := range 4 {
		b, err := r.Upload(context.Background(), bytes.NewReader(bytes.Repeat([]byte{byte(i)}, 5000)), 1<<20, func([]byte) string { return "image/png" })
		if err != nil {
			t.Fatal(err)
		}
		blobs = append(blobs, b)
	}
	for i, b := range blobs[:3] {
		for j := range i + 1 {
			w := Write{Create, "com.example.note", fmt.Sprintf("b%d%d", i, j), recordWith(b)}
			apply(t, r, w)
			m.apply([]Write{w})
		}
	}
	r.Close()
	if report, lines := verify(t, cfg); len(lines) != 0 || report.Blobs != 4 {
		t.Fatalf("%+v, %q", report, lines)
	}
	files := newBlobFiles(cfg)
	for _, tc := range []struct {
		name   string
		change func(s *store.Store, b *pebble.Batch)
		want   string
	}{
		{"lists", func(s *store.Store, b *pebble.Batch) { b.Delete(usesKey("com.example.note/b00"), nil) }, "blob com.example.note/b00: the record refers to 1"},
		{"uses", func(s *store.Store, b *pebble.Batch) {
			b.DeleteRange([]byte(prefixBlobUse), after(prefixBlobUse), nil)
		}, "com.example.note/b22 refers to it is not known"},
		{"a row", func(s *store.Store, b *pebble.Batch) {
			d, _ := digestOfBlob(blobs[2].CID)
			b.Delete(blobKey(d), nil)
		}, "its row is missing"},
		{"a count", func(s *store.Store, b *pebble.Batch) {
			d, _ := digestOfBlob(blobs[1].CID)
			b.Set(blobKey(d), blobRow{uses: 7, stored: true, size: 5000, mime: "image/png"}.encode(), nil)
		}, "2 uses of it are known, and 7 are counted"},
		{"idle", func(s *store.Store, b *pebble.Batch) {
			b.DeleteRange([]byte(prefixIdleBlob), after(prefixIdleBlob), nil)
		}, "it waits for a record and would never go"},
		{"a list too many", func(s *store.Store, b *pebble.Batch) {
			d, _ := digestOfBlob(blobs[1].CID)
			b.Set(usesKey("com.example.note/none"), d[:], nil)
		}, "1 lists are of no record"},
	} {
		tamper(t, cfg, tc.change)
		if _, lines := verify(t, cfg); len(lines) == 0 || !strings.Contains(strings.Join(lines, "\n"), tc.want) {
			t.Errorf("%s: %q, want %q", tc.name, lines, tc.want)
		}
		mustRepair(t, RepairConfig{Config: cfg})
		if report, lines := verify(t, cfg); len(lines) != 0 || report.Blobs != 4 || report.Missing != 0 {
			t.Errorf("%s, repaired: %+v, %q", tc.name, report, lines)
		}
	}
	d, _ := digestOfBlob(blobs[2].CID)
	if err := cfg.FS.Remove(files.path(d)); err != nil {
		t.Fatal(err)
	}
	if _, lines := verify(t, cfg); len(lines) != 1 || !strings.Contains(lines[0], "its file is missing") {
		t.Errorf("a file: %q", lines)
	}
	done := mustRepair(t, RepairConfig{Config: cfg})
	if report, lines := verify(t, cfg); len(lines) != 0 || report.Blobs != 3 || report.Missing != 1 {
		t.Errorf("a file, repaired: %+v, %q, %q", report, lines, done.Done)
	}
	sound(t, cfg, m)
}

// recordWith refers to a blob.
func recordWith(b Blob) []byte {
	data, err := atdata.MarshalCBOR(map[string]any{"$type": "com.example.note", "picture": atdata.Blob{
		Ref: atdata.CIDLink(b.CID), MimeType: b.MimeType, Size: b.Size,
	}})
	if err != nil {
		panic(err)
	}
	return data
}

// crowded is a disk with little space.
type crowded struct{ vfs.FS }

func (crowded) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{AvailBytes: 1 << 30, TotalBytes: 1 << 40}, nil
}

// A repair that runs out of disk leaves all as it was.
func TestRepairDiskFull(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	m := filled(t, cfg, 200)
	tamper(t, cfg, func(s *store.Store, b *pebble.Batch) {
		b.DeleteRange([]byte(prefixNode), after(prefixNode), nil)
	})
	full := cfg
	full.FS, full.Reserve = crowded{cfg.FS}, 1<<40
	if _, err := Repair(context.Background(), RepairConfig{Config: full}); !errors.Is(err, ErrNoSpace) {
		t.Errorf("got %v, want ErrNoSpace", err)
	}
	if names, _ := cfg.FS.List(""); len(names) != 1 {
		t.Errorf("left behind: %q", names)
	}
	mustRepair(t, RepairConfig{Config: cfg})
	sound(t, cfg, m)
}
