package repo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/tidings-dev/tidings/atproto/block"
	"github.com/tidings-dev/tidings/atproto/repo/layout"
	"github.com/tidings-dev/tidings/internal/store"
)

func TestInitAndOpen(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.FS = nil // the operating system's
	cfg.Dir = filepath.Join(t.TempDir(), "data", "hold")
	if Exists(cfg.Dir) {
		t.Error("a repo exists before Init")
	}
	if _, err := Open(cfg); !errors.Is(err, ErrNotExist) {
		t.Errorf("Open without a repo: %v", err)
	}
	if _, err := os.Stat(cfg.Dir); !os.IsNotExist(err) {
		t.Errorf("Open without a repo created the folder: %v", err)
	}
	r := initRepo(t, cfg, profile())
	if !Exists(cfg.Dir) {
		t.Error("no repo exists after Init")
	}
	if _, err := Init(cfg, []Write{profile()}); !errors.Is(err, ErrRepoExists) {
		t.Errorf("Init over a repo: %v", err)
	}
	if _, err := Open(cfg); err == nil {
		t.Error("opened twice")
	}
	head := r.Head()
	apply(t, r, note(Create, "a", "1"))
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Dir(cfg.Dir))
	if err != nil || len(entries) != 1 {
		t.Errorf("files next to the repo: %v, %v", entries, err)
	}

	other := cfg
	other.DID = "did:web:elsewhere.example.com"
	if _, err := Open(other); err == nil || !strings.Contains(err.Error(), cfg.DID) || !strings.Contains(err.Error(), other.DID) {
		t.Errorf("another DID: %v", err)
	}
	other = cfg
	other.Key = testKey(t)
	if _, err := Open(other); err == nil || !errors.Is(err, ErrKey) {
		t.Errorf("another key: %v", err)
	}
	r = openRepo(t, cfg)
	if got := r.Head(); got.DID != cfg.DID || got.Rev <= head.Rev {
		t.Errorf("head %+v", got)
	}
	if err := r.store.Set(layout.KeyFormat, []byte{0, 0, 0, layout.FormatNumber + 1}, store.NoSync); err != nil {
		t.Fatal(err)
	}
	if err := store.Pebble(r.store).Flush(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if _, err := Open(cfg); err == nil || !strings.Contains(err.Error(), "newer program") {
		t.Errorf("a newer format: %v", err)
	}
	for name, bad := range map[string]Config{
		"dir": {DID: cfg.DID, Key: cfg.Key},
		"DID": {Dir: "x", DID: "example.com", Key: cfg.Key},
		"key": {Dir: "x", DID: cfg.DID},
	} {
		if _, err := Init(bad, nil); err == nil || !strings.Contains(err.Error(), name[1:]) {
			t.Errorf("no %s: %v", name, err)
		}
	}
}

func TestReads(t *testing.T) {
	t.Parallel()
	r := initRepo(t, testConfig(t), profile())
	var keys []string
	for i := range 25 {
		keys = append(keys, fmt.Sprintf("k%02d", i))
		apply(t, r, note(Create, keys[i], "the same"))
	}
	// Collections with similar names, whose records must not be listed.
	for _, c := range []string{"com.example.note-x.y", "com.example.not", "com.example.noteB", "com.example.note.sub"} {
		apply(t, r, Write{Create, c, "z", record("x")})
	}
	c, rec, err := r.Get("com.example.note", "k07")
	if err != nil || c != block.CIDOf(record("the same")) || string(rec) != string(record("the same")) {
		t.Errorf("Get: %s %q %v", c, rec, err)
	}
	if _, _, err := r.Get("com.example.note", "k99"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Get of a missing record: %v", err)
	}
	got, err := r.Collections()
	want := []string{"app.bsky.actor.profile", "com.example.not", "com.example.note", "com.example.note-x.y", "com.example.note.sub", "com.example.noteB"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("collections %q, want %q (%v)", got, want, err)
	}
	for _, reverse := range []bool{false, true} {
		for _, limit := range []int{1, 7, 24, 25, 26, 0} {
			var all []string
			cursor := ""
			for pages := 0; ; pages++ {
				page, next, err := r.List("com.example.note", cursor, limit, reverse)
				if err != nil || pages > 25 {
					t.Fatalf("page %d: %v", pages, err)
				}
				for _, rec := range page {
					all = append(all, rec.RKey)
				}
				if next == "" {
					break
				}
				if len(page) != limit || next != page[limit-1].RKey {
					t.Fatalf("page of %d, next %q", len(page), next)
				}
				cursor = next
			}
			want := slices.Clone(keys)
			if !reverse {
				slices.Reverse(want)
			}
			if !slices.Equal(all, want) {
				t.Errorf("limit %d, reverse %t: %q", limit, reverse, all)
			}
		}
	}
	if page, next, err := r.List("com.example.nothing", "", 10, false); len(page) != 0 || next != "" || err != nil {
		t.Errorf("an empty collection: %v %q %v", page, next, err)
	}
	if _, _, err := r.List("nothing", "", 10, false); !errors.Is(err, ErrInvalidPath) {
		t.Errorf("an invalid collection: %v", err)
	}
	if page, _, err := r.List("com.example.note", "k", 1, true); err != nil || page[0].RKey != "k00" {
		t.Errorf("a cursor that is not a key: %v %v", page, err)
	}
}

func loadBlock(t testing.TB, r *Repo, c cid.Cid) ([]byte, error) {
	t.Helper()
	v, err := r.acquire()
	if err != nil {
		t.Fatal(err)
	}
	defer r.release(v)
	f, err := v.finder()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := f.load(c)
	return slices.Clone(data), err
}

func TestBlock(t *testing.T) {
	t.Parallel()
	r := initRepo(t, testConfig(t), profile())
	old := apply(t, r, note(Create, "a", "one"), note(Create, "b", "one"))
	rootBefore := r.Head().Data
	apply(t, r, note(Update, "a", "two"))
	head := r.Head()
	for name, c := range map[string]cid.Cid{"commit": head.Commit, "root": head.Data, "record": block.CIDOf(record("one")), "new record": block.CIDOf(record("two"))} {
		data, err := loadBlock(t, r, c)
		if err != nil || block.CIDOf(data) != c {
			t.Errorf("%s: %v", name, err)
		}
	}
	apply(t, r, note(Delete, "b", ""))
	raw, err := cid.Decode("bafkreibme22gw2h7y2h7tg2fhqotaqjucnbc24deqo72b6mkl2egezxhvy")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]cid.Cid{"old commit": old.Commit, "old root": rootBefore, "deleted record": block.CIDOf(record("one")), "raw": raw, "none": cid.Undef} {
		if _, err := loadBlock(t, r, c); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An export has the state of one commit while others are written.
func TestExportSnapshot(t *testing.T) {
	t.Parallel()
	r := initRepo(t, testConfig(t), profile())
	var writes []Write
	for i := range 200 {
		writes = append(writes, note(Create, fmt.Sprintf("k%03d", i), strings.Repeat("x", 2000)))
	}
	apply(t, r, writes...)
	m := model{}
	m.apply([]Write{profile()})
	m.apply(writes)
	var car writerFunc
	var buf []byte
	i := 0
	car = func(p []byte) (int, error) {
		apply(t, r, note(Delete, fmt.Sprintf("k%03d", i), ""), note(Update, fmt.Sprintf("k%03d", 100+i), "y"))
		i++
		buf = append(buf, p...)
		return len(p), nil
	}
	if err := r.Export(context.Background(), car); err != nil {
		t.Fatal(err)
	}
	if i < 5 {
		t.Fatalf("only %d writes to the client", i)
	}
	verifyCAR(t, r, buf, m)
	ctx, cancel := context.WithCancel(context.Background())
	err := r.Export(ctx, writerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil }))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a disconnected client: %v", err)
	}
	broken := errors.New("broken pipe")
	if err := r.Export(context.Background(), writerFunc(func([]byte) (int, error) { return 0, broken })); !errors.Is(err, broken) {
		t.Errorf("a broken connection: %v", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestFirstEvents(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Handle = "registry.example.com"
	r := initRepo(t, cfg, profile())
	all := events(t, r, 0)
	if len(all) != 4 {
		t.Fatalf("%d events", len(all))
	}
	for i, want := range []string{"#identity", "#account", "#commit", "#sync"} {
		if got := string(all[i].Frame[4 : 4+len(want)]); got != want {
			t.Errorf("event %d is %q, want %q", i, got, want)
		}
		if i > 0 && all[i].Seq <= all[i-1].Seq {
			t.Errorf("event %d has seq %d", i, all[i].Seq)
		}
	}
	if !strings.Contains(string(all[0].Frame), "fhandletregistry.example.com") {
		t.Errorf("no handle in %q", all[0].Frame)
	}
	if got := r.Head().Seq; got != all[3].Seq {
		t.Errorf("head seq %d, want %d", got, all[3].Seq)
	}
	if rest := events(t, r, all[0].Seq); len(rest) != 3 {
		t.Errorf("%d events after the first, want 3", len(rest))
	}
	if page, _ := r.Events(0, 2); len(page) != 2 {
		t.Errorf("%d events, want 2", len(page))
	}
}

func TestEventRetention(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	t.Run("age", func(t *testing.T) {
		t.Parallel()
		cfg := testConfig(t)
		at := start
		cfg.Now = func() time.Time { return at }
		r := initRepo(t, cfg, profile())
		step := func(d time.Duration) {
			at = at.Add(d)
			apply(t, r, note(Create, fmt.Sprint("k", at.Unix()), "x"))
		}
		for range 10 {
			step(10 * time.Hour)
		}
		oldest := events(t, r, 0)[0].Seq
		// those within 72 h of the last commit are kept
		if age := at.Sub(time.UnixMicro(int64(oldest))); age < 62*time.Hour || age > 73*time.Hour {
			t.Errorf("the oldest event has an age of %s", age)
		}
		if got := len(events(t, r, 0)); got != 8 {
			t.Errorf("%d events, want 8", got)
		}
		r = openAgain(t, r)
		step(200 * time.Hour)
		if got := len(events(t, r, 0)); got != 1 {
			t.Errorf("%d events after a long quiet period, want 1", got)
		}
		step(time.Hour)
		step(time.Hour)
		if got := len(events(t, r, 0)); got != 3 {
			t.Errorf("%d events, want 3", got)
		}
	})
	t.Run("size", func(t *testing.T) {
		t.Parallel()
		cfg := testConfig(t)
		cfg.EventsLimit = 64 << 10
		r := initRepo(t, cfg, profile())
		for i := range 300 {
			apply(t, r, note(Create, fmt.Sprintf("k%03d", i), "x"))
			if i == 150 {
				r = openAgain(t, r)
			}
			size := 0
			for _, e := range events(t, r, 0) {
				size += len(e.Frame)
			}
			if size > 64<<10 || i > 150 && size < 50<<10 {
				t.Fatalf("after %d commits %d bytes of frames are kept", i, size)
			}
		}
	})
	t.Run("without commits", func(t *testing.T) {
		t.Parallel()
		cfg, err := testConfig(t).WithDefaults()
		if err != nil {
			t.Fatal(err)
		}
		cfg.Now = fixedClock(start)
		initRepo(t, cfg, profile()).Close()
		s, err := layout.Open(cfg.Dir, cfg.Layout())
		if err != nil {
			t.Fatal(err)
		}
		on, err := loadHead(cfg, s)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Now = fixedClock(start.Add(73 * time.Hour))
		w, err := newWriter(cfg, s, on)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.cleanUp(func(layout.State) func() { return func() {} }); err != nil {
			t.Fatal(err)
		}
		if got, err := layout.Count(s, layout.PrefixEvent); got != 0 || err != nil {
			t.Errorf("%d events after the cleanup, want 0 (%v)", got, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		r := openRepo(t, cfg)
		if got := events(t, r, 0); len(got) != 0 {
			t.Errorf("%d events, want 0", len(got))
		}
		apply(t, r, note(Create, "a", "1"))
		if got := events(t, r, 0); len(got) != 1 {
			t.Errorf("%d events, want 1", len(got))
		}
	})
}
