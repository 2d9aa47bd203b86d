package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/ipfs/go-cid"
	"github.com/tidings-dev/tidings/atproto/repo/layout"
)

func TestApplyRefuses(t *testing.T) {
	t.Parallel()
	r := initRepo(t, testConfig(t), profile(), note(Create, "here", "1"))
	many := make([]Write, MaxWrites+1)
	for i := range many {
		many[i] = note(Create, fmt.Sprint("k", i), "x")
	}
	big := func(key string, n int) Write {
		return Write{Create, "com.example.note", key, record(strings.Repeat("x", n))}
	}
	tests := []struct {
		name   string
		writes []Write
		want   error
		index  int // of the WriteError; -1: another error
	}{
		{"create an existing record", []Write{note(Create, "new", "1"), note(Create, "here", "1")}, ErrExists, 1},
		{"update a missing record", []Write{note(Update, "gone", "1")}, ErrNotFound, 0},
		{"delete a missing record", []Write{note(Delete, "gone", "")}, ErrNotFound, 0},
		{"create twice", []Write{note(Create, "new", "1"), note(Create, "new", "2")}, ErrExists, 1},
		{"update after delete", []Write{note(Delete, "here", ""), note(Update, "here", "2")}, ErrNotFound, 1},
		{"slash in key", []Write{note(Create, "a/b", "1")}, ErrInvalidPath, 0},
		{"dot as key", []Write{note(Create, ".", "1")}, ErrInvalidPath, 0},
		{"no key", []Write{note(Create, "", "1")}, ErrInvalidPath, 0},
		{"long key", []Write{note(Create, strings.Repeat("k", 513), "1")}, ErrInvalidPath, 0},
		{"no NSID", []Write{{Create, "note", "k", record("x")}}, ErrInvalidPath, 0},
		{"other action", []Write{{"upsert", "com.example.note", "k", record("x")}}, ErrInvalidAction, 0},
		{"no record", []Write{{Create, "com.example.note", "k", nil}}, ErrInvalidAction, 0},
		{"delete with record", []Write{{Delete, "com.example.note", "here", record("x")}}, ErrInvalidAction, 0},
		{"large record", []Write{big("k", MaxRecord)}, ErrTooLarge, 0},
		{"many writes", many, ErrTooLarge, -1},
		{"large call", []Write{big("a", 900_000), big("b", 900_000), big("c", 900_000)}, ErrTooLarge, -1},
		{"large with its proof", []Write{big("a", 999_500), big("b", 999_900)}, ErrTooLarge, -1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			before := r.Head()
			_, err := r.Apply(context.Background(), test.writes, nil)
			if !errors.Is(err, test.want) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			var at *WriteError
			if errors.As(err, &at) != (test.index >= 0) || at != nil && at.Index != test.index {
				t.Errorf("got %#v, want index %d", err, test.index)
			}
			if got := r.Head(); got != before {
				t.Errorf("the head changed to %+v", got)
			}
		})
	}
	apply(t, r, note(Create, "new", "1"))
	m := model{}
	m.apply([]Write{profile(), note(Create, "here", "1"), note(Create, "new", "1")})
	checkStore(t, r, m)
}

func TestApplyInOrder(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	r := initRepo(t, cfg, profile(), note(Create, "a", "1"), note(Create, "b", "1"), note(Create, "c", "1"))
	writes := []Write{
		note(Create, "new", "1"), note(Update, "new", "2"), // net effect: create
		note(Delete, "a", ""), note(Create, "a", "2"), // update
		note(Update, "b", "1"),                                // none
		note(Create, "brief", "1"), note(Delete, "brief", ""), // none
		note(Update, "c", "2"), note(Delete, "c", ""), // delete
	}
	m := model{}
	m.apply([]Write{profile(), note(Create, "a", "1"), note(Create, "b", "1"), note(Create, "c", "1")})
	m.apply(writes)
	apply(t, r, writes...)
	checkStore(t, r, m)
	all := events(t, r, 0)
	msg := verifyFrame(t, cfg, all[4], decodeCommit(t, all[2]))
	var got []string
	for _, op := range msg.Ops {
		got = append(got, op.Action+" "+op.Path)
	}
	want := "create com.example.note/new, update com.example.note/a, delete com.example.note/c"
	if strings.Join(got, ", ") != want {
		t.Errorf("operations %q, want %q", got, want)
	}
}

func TestEmptyCommit(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	r := initRepo(t, cfg) // without records
	before := r.Head()
	res := apply(t, r)
	if got := r.Head(); got.Data != before.Data || got.Rev != res.Rev || res.Rev <= before.Rev {
		t.Errorf("head went from %+v to %+v", before, got)
	}
	checkStore(t, r, model{})
	all := events(t, r, 0)
	verifyFrame(t, cfg, all[4], verifyFrame(t, cfg, all[2], nil))
	// From the last key at a great height to one at a low height and back, where
	// indigo's mst alone builds an invalid tree.
	m := model{}
	for i := range 200 {
		w := note(Create, fmt.Sprint("k", i), "x")
		apply(t, r, w)
		m.apply([]Write{w})
		if i%3 == 0 {
			checkStore(t, r, m)
		}
		w.Action, w.Record = Delete, nil
		apply(t, r, w)
		m.apply([]Write{w})
	}
	checkStore(t, openAgain(t, r), model{})
}

func openAgain(t testing.TB, r *Repo) *Repo {
	t.Helper()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	return openRepo(t, r.cfg)
}

func TestSwap(t *testing.T) {
	t.Parallel()
	r := initRepo(t, testConfig(t), profile())
	ctx := context.Background()
	head := r.Head().Commit
	res, err := r.Apply(ctx, []Write{note(Create, "a", "1")}, &head)
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Apply(ctx, []Write{note(Create, "b", "1")}, &head)
	var swap *SwapError
	if !errors.As(err, &swap) || swap.Head != res.Commit {
		t.Fatalf("got %v, want a SwapError with %s", err, res.Commit)
	}
	if _, _, err := r.Get("com.example.note", "b"); !errors.Is(err, ErrNotFound) {
		t.Errorf("the refused write: %v", err)
	}
}

// gate is a file system that counts log syncs and can block them.
type gate struct {
	mu    sync.Mutex
	hold  chan struct{} // nil: open
	syncs int
}

func (g *gate) wrap(fs vfs.FS) vfs.FS {
	return errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if !isLogSync(op) {
			return nil
		}
		g.mu.Lock()
		g.syncs++
		hold := g.hold
		g.mu.Unlock()
		if hold != nil {
			<-hold
		}
		return nil
	}))
}

func isLogSync(op errorfs.Op) bool {
	switch op.Kind {
	case errorfs.OpFileSync, errorfs.OpFileSyncData:
		return strings.HasSuffix(op.Path, ".log")
	}
	return false
}

func (g *gate) shut() (open func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.syncs = 0
	g.hold = make(chan struct{})
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		close(g.hold)
		g.hold = nil
	}
}

func (g *gate) await(t *testing.T, syncs int) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		g.mu.Lock()
		n := g.syncs
		g.mu.Unlock()
		if n >= syncs {
			return
		}
	}
	t.Fatal("timeout waiting for a sync")
}

// TestGroup blocks an fsync: readers see nothing that is not durable, and all
// calls that are pending in the meantime share the next fsync.
func TestGroup(t *testing.T) {
	t.Parallel()
	var g gate
	cfg := testConfig(t)
	cfg.FS = g.wrap(cfg.FS)
	r := initRepo(t, cfg, profile())
	before := r.Head()
	open := g.shut()
	const callers = 40
	results := make(chan string, callers)
	call := func(i int) {
		res, err := r.Apply(context.Background(), []Write{note(Create, fmt.Sprint("k", i), "x")}, nil)
		if err != nil {
			results <- err.Error()
		} else {
			results <- res.Rev
		}
	}
	go call(0)
	g.await(t, 1)
	if got := r.Head(); got != before {
		t.Errorf("head is %+v before the fsync", got)
	}
	if _, _, err := r.Get("com.example.note", "k0"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a record that isn't durable: %v", err)
	}
	if ev := events(t, r, before.Seq); len(ev) != 0 {
		t.Errorf("%d events that aren't durable", len(ev))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	select {
	case <-r.Wake(before.Seq):
		t.Error("woken for an event that isn't durable")
	case <-time.After(10 * time.Millisecond):
	}
	if _, err := r.Apply(ctx, []Write{note(Create, "late", "x")}, nil); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrUnknownOutcome) {
		t.Errorf("caller whose context ended: %v", err)
	}
	for i := 1; i < callers; i++ {
		go call(i)
	}
	time.Sleep(50 * time.Millisecond) // until all of them are pending
	open()
	revs := map[string]bool{}
	for range callers {
		rev := <-results
		if _, err := syntax.ParseTID(rev); err != nil || revs[rev] {
			t.Errorf("rev %q", rev)
		}
		revs[rev] = true
	}
	g.mu.Lock()
	if g.syncs > 10 {
		t.Errorf("%d fsyncs for %d commits", g.syncs, callers)
	}
	g.mu.Unlock()
	<-r.Wake(before.Seq)
	ev := events(t, r, before.Seq)
	if len(ev) != callers {
		t.Fatalf("%d events, want %d", len(ev), callers)
	}
	var prev *comatproto.SyncSubscribeRepos_Commit
	for _, e := range events(t, r, 0) {
		if isCommit(e) {
			prev = verifyFrame(t, cfg, e, prev)
		}
	}
	m := model{}
	m.apply([]Write{profile()})
	for i := range callers {
		m.apply([]Write{note(Create, fmt.Sprint("k", i), "x")})
	}
	checkStore(t, r, m)
}

// A refused call does not affect the other calls of its group.
func TestGroupRefusals(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	r := initRepo(t, cfg, profile())
	r.Close()
	s, err := layout.Open(cfg.Dir, r.cfg.Layout())
	if err != nil {
		t.Fatal(err)
	}
	on, err := loadHead(r.cfg, s)
	if err != nil {
		t.Fatal(err)
	}
	w, err := newWriter(r.cfg, s, on)
	if err != nil {
		t.Fatal(err)
	}
	var batch []request
	add := func(swap *cid.Cid, writes ...Write) {
		batch = append(batch, request{ctx: context.Background(), writes: writes, swap: swap, answer: make(chan answer, 1)})
	}
	large := func(key string) Write {
		return Write{Create, "com.example.note", key, bytes.Repeat([]byte{0}, 999_900)}
	}
	old := on.Commit
	add(&old, note(Create, "a", "1"))
	add(&old, note(Create, "b", "1"))      // the head changed within the group
	add(nil, note(Create, "a", "2"))       // exists by the first
	add(nil, note(Update, "a", "3"))       // so does this
	add(nil, large("big1"), large("big2")) // needs a new tree, ends the group
	add(nil, note(Create, "c", "1"))       // left for the next group
	add(nil, note(Delete, "a", ""))        // left for the next group
	want := []error{nil, &SwapError{}, ErrExists, nil, ErrTooLarge, nil, nil}
	rounds := 0
	all := batch
	for len(batch) > 0 {
		rounds++
		batch = w.group(batch, func(layout.State) func() { return func() {} })
	}
	if rounds != 2 {
		t.Errorf("%d groups, want 2", rounds)
	}
	for i, q := range all {
		got := (<-q.answer).err
		if _, swap := want[i].(*SwapError); swap {
			if !errors.As(got, new(*SwapError)) {
				t.Errorf("call %d: %v, want a SwapError", i, got)
			}
		} else if !errors.Is(got, want[i]) {
			t.Errorf("call %d: %v, want %v", i, got, want[i])
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	m := model{}
	m.apply([]Write{profile(), note(Create, "c", "1")})
	checkStore(t, openRepo(t, cfg), m)
}

func TestClock(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var mu sync.Mutex
	set := func(at time.Time) { mu.Lock(); now = at; mu.Unlock() }
	start := now
	cfg := testConfig(t)
	cfg.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	r := initRepo(t, cfg, profile())
	last := r.Head()
	if got, want := int64(last.Seq), start.UnixMicro()+3; got != want {
		t.Errorf("seq %d, want %d", got, want)
	}
	for i, at := range []time.Time{start, start.Add(-59 * time.Second), start.Add(time.Hour)} {
		set(at)
		apply(t, r, note(Create, fmt.Sprint("k", i), "x"))
		if got := r.Head(); got.Rev <= last.Rev || got.Seq <= last.Seq {
			t.Errorf("%+v after %+v", got, last)
		}
		last = r.Head()
	}
	set(start)
	_, err := r.Apply(context.Background(), []Write{note(Create, "late", "x")}, nil)
	if !errors.Is(err, ErrClock) || !strings.Contains(err.Error(), "1h0m0s ahead") {
		t.Errorf("got %v", err)
	}
	if got := r.Head(); got != last {
		t.Errorf("head changed to %+v", got)
	}
	set(start.Add(time.Hour))
	r = openAgain(t, r)
	apply(t, r, note(Create, "late", "x"))
}

// full is a file system with a configurable amount of free space.
type full struct {
	vfs.FS
	mu   sync.Mutex
	free uint64
}

func (f *full) GetDiskUsage(string) (vfs.DiskUsage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return vfs.DiskUsage{AvailBytes: f.free}, nil
}

func (f *full) set(free uint64) { f.mu.Lock(); f.free = free; f.mu.Unlock() }

func TestReserve(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	disk := &full{FS: cfg.FS, free: 2 << 30}
	cfg.FS, cfg.Reserve = disk, 0
	r := initRepo(t, cfg, profile())
	disk.set(1000 << 20)
	_, err := r.Apply(context.Background(), []Write{note(Create, "a", "1")}, nil)
	if !errors.Is(err, ErrNoSpace) || !strings.Contains(err.Error(), "1000 MiB free") || !strings.Contains(err.Error(), "1024 MiB") {
		t.Errorf("got %v", err)
	}
	if err := r.Health(); !errors.Is(err, ErrNoSpace) {
		t.Errorf("health: %v", err)
	}
	if _, _, err := r.Get("app.bsky.actor.profile", "self"); err != nil {
		t.Error(err)
	}
	disk.set(1 << 30)
	apply(t, r, note(Create, "a", "1"))
	if err := r.Health(); err != nil {
		t.Error(err)
	}
}

func TestClose(t *testing.T) {
	t.Parallel()
	r := initRepo(t, testConfig(t), profile())
	begun, stuck := make(chan struct{}), make(chan struct{})
	exported := make(chan error)
	go func() { exported <- r.Export(context.Background(), &slowWriter{begun, stuck, sync.Once{}}) }()
	<-begun
	closed := make(chan error)
	go func() { closed <- r.Close() }()
	for !errors.Is(r.Health(), ErrClosed) {
		time.Sleep(time.Millisecond)
	}
	ctx := context.Background()
	if _, err := r.Apply(ctx, nil, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Apply: %v", err)
	}
	if _, _, err := r.Get("com.example.note", "a"); !errors.Is(err, ErrClosed) {
		t.Errorf("Get: %v", err)
	}
	close(stuck)
	if err := <-exported; err != nil {
		t.Errorf("Export that had read all records: %v", err)
	}
	for range 2 {
		if err := <-closed; err != nil {
			t.Errorf("Close: %v", err)
		}
		go func() { closed <- r.Close() }()
	}
	<-closed
}

type slowWriter struct {
	begun, stuck chan struct{}
	once         sync.Once
}

func (w *slowWriter) Write(p []byte) (int, error) {
	w.once.Do(func() { close(w.begun) })
	<-w.stuck
	return len(p), nil
}
