package repair

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/mst"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/atproto/repo/layout"
	"github.com/tidings-dev/tidings/internal/race"
	"github.com/tidings-dev/tidings/internal/store"
)

func mustRepair(t testing.TB, cfg Config) Result {
	t.Helper()
	done, err := Repair(context.Background(), cfg)
	if err != nil {
		t.Fatalf("%v; done: %q", err, done.Done)
	}
	return done
}

// checkSound checks that a closed repo has no problems and holds the model,
// opens it and writes to it.
func checkSound(t testing.TB, cfg repo.Config, m model) *repo.Repo {
	t.Helper()
	if report, lines := verify(t, cfg); len(lines) != 0 || int(report.Records) != len(m) {
		t.Fatalf("%d records, want %d; problems: %q", report.Records, len(m), lines)
	}
	r := openRepo(t, cfg)
	before := r.Head()
	w := note(repo.Create, "zz-after", "and on")
	apply(t, r, w)
	if now := r.Head(); now.Rev <= before.Rev || now.Seq <= before.Seq {
		t.Errorf("after %+v comes %+v", before, now)
	}
	m.apply([]repo.Write{w})
	checkRecords(t, r, m)
	return r
}

func TestRepairNothing(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	m := filled(t, cfg, 20)
	if done := mustRepair(t, Config{Config: cfg}); len(done.Done) != 0 || done.Before.Problems != 0 {
		t.Errorf("%+v", done)
	}
	checkSound(t, cfg, m)
}

// Repair derives damaged parts: the result has the same records under the same
// signed commit, and a #sync.
func TestRepairDerives(t *testing.T) {
	t.Parallel()
	const path = "com.example.note/k00123"
	for _, tc := range []struct {
		name   string
		change func(t *testing.T, s *store.Store, b store.Batch)
		want   string
		fresh  bool
	}{
		{"all nodes", func(t *testing.T, s *store.Store, b store.Batch) {
			b.DeleteRange([]byte(layout.PrefixNode), layout.End(layout.PrefixNode))
		}, "", false},
		{"some nodes", func(t *testing.T, s *store.Store, b store.Batch) {
			for i, key := range keysUnder(t, s, layout.PrefixNode) {
				if i%3 == 0 {
					b.Delete(key)
				} else if i%3 == 1 {
					flip(t, s, b, key, last)
				}
			}
		}, "", false},
		{"leaked nodes", func(t *testing.T, s *store.Store, b store.Batch) {
			for i := range 50 {
				b.Set(layout.NodeKey(block.DigestOf(block.CIDOf(record(fmt.Sprint(i))))), record(fmt.Sprint(i)))
			}
		}, "", false},
		{"the index", func(t *testing.T, s *store.Store, b store.Batch) {
			b.DeleteRange([]byte(layout.PrefixIndex), layout.End(layout.PrefixIndex))
			b.Set(layout.IndexKey(block.CIDOf(record("x")), path), nil)
		}, "", false},
		{"lost records, from the log", func(t *testing.T, s *store.Store, b store.Batch) {
			b.Delete(layout.RecordKey(path))
			flip(t, s, b, layout.RecordKey("com.example.note/k00200"), last)
		}, "2 records were taken from the event log", false},
		{"lost records and all nodes", func(t *testing.T, s *store.Store, b store.Batch) {
			b.DeleteRange([]byte(layout.PrefixIndex), layout.End(layout.PrefixIndex))
			b.Delete(layout.RecordKey(path))
		}, "1 records were taken from the event log", false},
		{"an extra record", func(t *testing.T, s *store.Store, b store.Batch) {
			b.Set(layout.RecordKey(path+"a"), append(block.DigestOf(block.CIDOf(record("x"))), record("x")...))
		}, "1 stored records were not copied", false},
		{"the head", func(t *testing.T, s *store.Store, b store.Batch) { b.Delete(layout.KeyHead) }, "the head was taken from the event log", false},
		{"a bit of the head", func(t *testing.T, s *store.Store, b store.Batch) {
			flip(t, s, b, layout.KeyHead, func(n int) int { return n - 80 })
		}, "the head was taken from the event log", false},
		{"a frame", func(t *testing.T, s *store.Store, b store.Batch) {
			flip(t, s, b, keysUnder(t, s, layout.PrefixEvent)[4], func(n int) int { return n / 2 })
		}, "the event log starts again after", false},
		{"the last frame", func(t *testing.T, s *store.Store, b store.Batch) {
			keys := keysUnder(t, s, layout.PrefixEvent)
			b.Delete(keys[len(keys)-1])
		}, "the event log starts again after", false},
		{"all frames and the count", func(t *testing.T, s *store.Store, b store.Batch) {
			b.DeleteRange([]byte(layout.PrefixEvent), layout.End(layout.PrefixEvent))
			b.Set(layout.KeyDropped, []byte("?"))
		}, "", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t)
			m := filled(t, cfg, 300)
			before, _ := verify(t, cfg)
			tamper(t, cfg, func(s *store.Store, b store.Batch) { tc.change(t, s, b) })
			done := mustRepair(t, Config{Config: cfg})
			if !strings.Contains(strings.Join(done.Done, "\n"), tc.want) {
				t.Errorf("%q is not in %q", tc.want, done.Done)
			}
			if done.Head.Commit != before.Head.Commit || done.Head.Seq <= before.Head.Seq {
				t.Errorf("the head is %+v, was %+v", done.Head, before.Head)
			}
			if !layout.Exists(cfg.FS, done.Backup) {
				t.Errorf("no backup in %q", done.Backup)
			}
			r := checkSound(t, cfg, m)
			if all := kinds(t, r, 0); len(all) < 2 || all[len(all)-2] != string(repo.Sync) {
				t.Errorf("events %q", all)
			}
		})
	}
}

// Records that can't be recovered are named, and dropped only with WithoutLost.
func TestRepairLost(t *testing.T) {
	t.Parallel()
	const path = "com.example.note/k00123"
	for _, tc := range []struct {
		name   string
		change func(s *store.Store, b store.Batch)
		want   string
		gone   bool
	}{
		{"a record", func(s *store.Store, b store.Batch) { b.Delete(layout.RecordKey(path)) }, "1 records are lost: they are in the tree, and their bytes were not found\n  " + path, true},
		{"a record and the tree", func(s *store.Store, b store.Batch) {
			b.Delete(layout.RecordKey(path))
			b.DeleteRange([]byte(layout.PrefixNode), layout.End(layout.PrefixNode))
		}, "the records make another tree than the signed one", true},
		{"the head and the log", func(s *store.Store, b store.Batch) { b.Delete(layout.KeyHead) }, "the head is lost, and the event log has none", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t)
			m := filled(t, cfg, 300)
			old, _ := verify(t, cfg)
			tamper(t, cfg, func(s *store.Store, b store.Batch) {
				b.DeleteRange([]byte(layout.PrefixEvent), layout.End(layout.PrefixEvent))
				tc.change(s, b)
			})
			files, _ := cfg.FS.List("")
			_, err := Repair(context.Background(), Config{Config: cfg})
			var lost *LostError
			if !errors.As(err, &lost) || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want %q", err, tc.want)
			}
			if now, _ := cfg.FS.List(""); len(now) != len(files) {
				t.Errorf("remaining folders: %q", now)
			}
			done := mustRepair(t, Config{Config: cfg, WithoutLost: true})
			if tc.gone {
				delete(m, path)
			}
			if done.Head.Commit == old.Head.Commit || done.Head.Rev <= old.Head.Rev {
				t.Errorf("no fresh commit: %+v after %+v", done.Head, old.Head)
			}
			checkSound(t, cfg, m)
		})
	}
}

// After a clock that was a year ahead, relays refuse the head and no commit can
// follow it. Repair replaces its rev; the sequence numbers continue.
func TestRepairClock(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	m := filled(t, cfg, 50)
	ahead := cfg
	ahead.Now = fixedClock(time.Now().AddDate(1, 0, 0))
	r := openRepo(t, ahead)
	w := note(repo.Create, "from-the-future", "a year")
	apply(t, r, w)
	m.apply([]repo.Write{w})
	r.Close()

	r = openRepo(t, cfg)
	if _, err := r.Apply(context.Background(), []repo.Write{note(repo.Create, "x", "x")}, nil); !errors.Is(err, repo.ErrClock) || !strings.Contains(err.Error(), "tidings hold repair") {
		t.Errorf("with the correct clock: %v", err)
	}
	seq := r.Head().Seq
	r.Close()
	done := mustRepair(t, Config{Config: cfg})
	if done.Backup != "" || done.Head.Seq <= seq || len(done.Done) != 1 {
		t.Errorf("%+v after event %d", done, seq)
	}
	if at, now := done.Head.Ahead(time.Now()), time.Minute; at > now {
		t.Errorf("the rev is %s ahead", at)
	}
	checkSound(t, cfg, m).Close()

	// If the clock is behind all events, it is likely to be wrong.
	behind := cfg
	behind.Now = fixedClock(time.Now().AddDate(-1, 0, 0))
	if _, err := Repair(context.Background(), Config{Config: behind}); !errors.Is(err, errClockBehind) {
		t.Errorf("with a clock a year behind: %v", err)
	}
	if done := mustRepair(t, Config{Config: behind, ClockIsRight: true}); len(done.Done) != 1 {
		t.Errorf("%+v", done)
	}
}

// A key that signed nothing in the repo changes nothing.
func TestRepairOtherKey(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	filled(t, cfg, 5)
	other := cfg
	other.Key = testKey(t)
	if _, err := Repair(context.Background(), Config{Config: other, WithoutLost: true}); !errors.Is(err, errOtherKey) {
		t.Fatal(err)
	}
	if _, lines := verify(t, cfg); len(lines) != 0 {
		t.Errorf("%q", lines)
	}
}

// A flipped bit anywhere in a file of the database: Verify reports where, and
// Repair recovers what the event log has.
func TestRepairBitOnDisk(t *testing.T) {
	t.Parallel()
	base := testConfig(t)
	base.FS, base.Dir = vfs.Default, filepath.Join(t.TempDir(), "hold")
	m := filled(t, base, 1500)
	tamper(t, base, func(s *store.Store, _ store.Batch) { // into one file per level
		if err := store.Pebble(s).Flush(); err != nil {
			t.Fatal(err)
		}
		if err := store.Pebble(s).Compact(context.Background(), []byte{0}, []byte{0xff}, false); err != nil {
			t.Fatal(err)
		}
	})
	tables, err := filepath.Glob(filepath.Join(base.Dir, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatal(err, tables)
	}
	tried, seen := 0, 0
	for i := range race.Some(12) {
		tried++
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
		_, err = Verify(context.Background(), cfg, nil, func(p Problem) { lines = append(lines, p.String()) }, nil)
		if err != nil {
			t.Fatalf("byte %d of %s: %v", at, name, err)
		}
		if len(lines) == 0 {
			continue // in unused bytes
		}
		seen++
		copied := cfg // since a failed database keeps its lock until the process ends
		copied.Dir = filepath.Join(t.TempDir(), "hold")
		if err := os.CopyFS(copied.Dir, os.DirFS(cfg.Dir)); err != nil {
			t.Fatal(err)
		}
		servesNoDamage(t, copied, m)
		done, err := Repair(context.Background(), Config{Config: cfg})
		var lost *LostError
		if errors.As(err, &lost) {
			// Records and their events can be in the same damaged block. Then Repair
			// names them and keeps all others.
			left := model{}
			for path, rec := range m {
				left[path] = rec
			}
			done = mustRepair(t, Config{Config: cfg, WithoutLost: true})
			for _, path := range done.Dropped {
				delete(left, path)
			}
			if len(done.Dropped) > 0 {
				checkSound(t, cfg, left)
			}
			continue
		}
		if err != nil {
			t.Fatalf("byte %d of %s: %v; problems: %.3q", at, name, err, lines)
		}
		mine := model{}
		for path, rec := range m {
			mine[path] = rec
		}
		checkSound(t, cfg, mine)
	}
	t.Logf("%d of 12 flipped bits were found", seen)
	if seen < tried/2 {
		t.Errorf("%d of %d flipped bits were detected, want more", seen, tried)
	}
}

// A flipped bit in the database's log, which has the writes that are not in tables
// yet: Open fails instead of using an earlier state, Verify reports the bit, and
// Repair recovers everything before it.
func TestRepairLog(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.FS, cfg.Dir = vfs.Default, filepath.Join(t.TempDir(), "hold")
	filled(t, cfg, 5)
	r := openRepo(t, cfg)
	keys := []string{"first", "second", "third", "fourth"}
	for _, key := range keys {
		apply(t, r, note(repo.Create, key, "the text of the "+key))
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	logs, err := filepath.Glob(filepath.Join(cfg.Dir, "*.log"))
	if err != nil || len(logs) == 0 {
		t.Fatal(err, logs)
	}
	log := slices.Max(logs)
	content, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(content, []byte("the text of the third"))
	if at < 0 {
		t.Fatal("the third record is not in the log")
	}
	content[at] ^= 1
	if err := os.WriteFile(log, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := repo.Open(cfg); !errors.Is(err, layout.ErrDamaged) || !errors.Is(err, store.ErrLog) {
		t.Errorf("Open: %v", err)
	}
	if _, err := repo.ReadStatus(cfg); !errors.Is(err, layout.ErrDamaged) {
		t.Errorf("ReadStatus: %v", err)
	}
	_, lines := verify(t, cfg)
	if len(lines) != 1 || !strings.HasPrefix(lines[0], string(PartFile)) || !strings.Contains(lines[0], "log") {
		t.Errorf("Verify: %q", lines)
	}
	mustRepair(t, Config{Config: cfg})
	if report, lines := verify(t, cfg); len(lines) != 0 || report.Records != 8 {
		t.Errorf("after Repair: %d records, %q", report.Records, lines)
	}
	r = openRepo(t, cfg)
	for i, key := range keys {
		if _, _, err := r.Get("com.example.note", key); errors.Is(err, repo.ErrNotFound) != (i >= 2) {
			t.Errorf("%s: %v", key, err)
		}
	}
}

// servesNoDamage reads a damaged repo as a server does, and checks that each read
// returns the correct record or an error, and that writes are refused after the
// first error.
func servesNoDamage(t testing.TB, cfg repo.Config, m model) {
	t.Helper()
	r, err := repo.Open(cfg)
	if err != nil {
		return // refused
	}
	defer r.Close()
	failed := false
	for path, want := range m {
		if _, got, err := r.Get(mst.SplitPath(path)); err != nil {
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
	if _, err := r.Apply(context.Background(), []repo.Write{note(repo.Create, "x", "x")}, nil); err == nil {
		t.Error("a write is accepted")
	}
}

// Blobs are kept with their records, and missing ones are reported.
func TestRepairBlobs(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	r := initRepo(t, cfg, profile())
	m := model{}
	m.apply([]repo.Write{profile()})
	var blobs []repo.Blob
	for i := range 4 {
		b, err := r.Upload(context.Background(), bytes.NewReader(bytes.Repeat([]byte{byte(i)}, 5000)), 1<<20, func([]byte) string { return "image/png" })
		if err != nil {
			t.Fatal(err)
		}
		blobs = append(blobs, b)
	}
	for i, b := range blobs[:3] {
		for j := range i + 1 {
			w := repo.Write{Action: repo.Create, Collection: "com.example.note", RKey: fmt.Sprintf("b%d%d", i, j), Record: recordWith(b)}
			apply(t, r, w)
			m.apply([]repo.Write{w})
		}
	}
	r.Close()
	if report, lines := verify(t, cfg); len(lines) != 0 || report.Blobs != 4 {
		t.Fatalf("%+v, %q", report, lines)
	}
	files := layout.NewBlobFiles(cfg.FS, cfg.Dir)
	for _, tc := range []struct {
		name   string
		change func(s *store.Store, b store.Batch)
		want   string
	}{
		{"lists", func(s *store.Store, b store.Batch) { b.Delete(layout.BlobRefsKey("com.example.note/b00")) }, "blob com.example.note/b00: the record refers to 1"},
		{"uses", func(s *store.Store, b store.Batch) {
			b.DeleteRange([]byte(layout.PrefixBlobUse), layout.End(layout.PrefixBlobUse))
		}, "its use by com.example.note/b22 is missing"},
		{"a row", func(s *store.Store, b store.Batch) {
			d, _ := block.BlobDigest(blobs[2].CID)
			b.Delete(layout.BlobKey(d))
		}, "its row is missing"},
		{"a count", func(s *store.Store, b store.Batch) {
			d, _ := block.BlobDigest(blobs[1].CID)
			b.Set(layout.BlobKey(d), layout.BlobRow{Uses: 7, Stored: true, Size: 5000, MIME: "image/png"}.Encode())
		}, "2 uses are stored, its row counts 7"},
		{"idle", func(s *store.Store, b store.Batch) {
			b.DeleteRange([]byte(layout.PrefixIdleBlob), layout.End(layout.PrefixIdleBlob))
		}, "idle, but would never be deleted"},
		{"an extra list", func(s *store.Store, b store.Batch) {
			d, _ := block.BlobDigest(blobs[1].CID)
			b.Set(layout.BlobRefsKey("com.example.note/none"), d[:])
		}, "1 lists without a record"},
	} {
		tamper(t, cfg, tc.change)
		if _, lines := verify(t, cfg); len(lines) == 0 || !strings.Contains(strings.Join(lines, "\n"), tc.want) {
			t.Errorf("%s: %q, want %q", tc.name, lines, tc.want)
		}
		mustRepair(t, Config{Config: cfg})
		if report, lines := verify(t, cfg); len(lines) != 0 || report.Blobs != 4 || report.Missing != 0 {
			t.Errorf("%s, repaired: %+v, %q", tc.name, report, lines)
		}
	}
	d, _ := block.BlobDigest(blobs[2].CID)
	if err := cfg.FS.Remove(files.Path(d)); err != nil {
		t.Fatal(err)
	}
	if _, lines := verify(t, cfg); len(lines) != 1 || !strings.Contains(lines[0], "file is missing") {
		t.Errorf("a file: %q", lines)
	}
	done := mustRepair(t, Config{Config: cfg})
	if report, lines := verify(t, cfg); len(lines) != 0 || report.Blobs != 3 || report.Missing != 1 {
		t.Errorf("a file, repaired: %+v, %q, %q", report, lines, done.Done)
	}
	checkSound(t, cfg, m)
}

// recordWith returns a record that refers to a blob.
func recordWith(b repo.Blob) []byte {
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

// A repair that runs out of disk space changes nothing.
func TestRepairDiskFull(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	m := filled(t, cfg, 200)
	tamper(t, cfg, func(s *store.Store, b store.Batch) {
		b.DeleteRange([]byte(layout.PrefixNode), layout.End(layout.PrefixNode))
	})
	full := cfg
	full.FS, full.Reserve = crowded{cfg.FS}, 1<<40
	if _, err := Repair(context.Background(), Config{Config: full}); !errors.Is(err, repo.ErrNoSpace) {
		t.Errorf("got %v, want ErrNoSpace", err)
	}
	if names, _ := cfg.FS.List(""); len(names) != 1 {
		t.Errorf("remaining folders: %q", names)
	}
	mustRepair(t, Config{Config: cfg})
	checkSound(t, cfg, m)
}
