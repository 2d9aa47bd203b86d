package counter

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/redis/go-redis/v9"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/counter/redistest"
	"github.com/tidings-dev/tidings/notifier/state"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

func at(t time.Time) func() time.Time { return func() time.Time { return t } }

func openState(t testing.TB, fs vfs.FS) *store.Store {
	t.Helper()
	db, err := state.Open(state.Config{Dir: "state", FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func open(t testing.TB, db *store.Store, cfg Config) *Counter {
	t.Helper()
	if cfg.Now == nil {
		cfg.Now = at(noon)
	}
	c, err := Open(db, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// replica is a registry: a folder with a journal and a state, with what it
// ought to have counted.
type replica struct {
	t       testing.TB
	journal string
	fs      *vfs.MemFS
	db      *store.Store
	cfg     Config
	c       *Counter
	seq     uint64 // the last event that was folded
	last    uint64 // the last event in the journal when it is opened
	want    map[string]map[Class]int64
}

func newReplica(t testing.TB, journal string, client redis.UniversalClient) *replica {
	r := &replica{t: t, journal: journal, fs: vfs.NewCrashableMem(), cfg: Config{Redis: client}, want: map[string]map[Class]int64{}}
	r.open()
	return r
}

func (r *replica) open() {
	r.t.Helper()
	r.last = max(r.last, r.seq)
	r.cfg.LastEvent = func(stream uint8) uint64 { return map[uint8]uint64{1: r.last}[stream] }
	r.db = openState(r.t, r.fs)
	r.c = open(r.t, r.db, r.cfg)
	db := r.db
	r.t.Cleanup(func() { db.Close() })
}

func (r *replica) reopen() {
	r.t.Helper()
	if err := r.db.Close(); err != nil {
		r.t.Fatal(err)
	}
	r.open()
}

// copied is a copy of the folder as it is, which is not open.
func (r *replica) copied() *replica {
	return &replica{
		t: r.t, journal: r.journal, cfg: r.cfg, seq: r.seq, last: r.last,
		fs:   r.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))}),
		want: map[string]map[Class]int64{},
	}
}

func (r *replica) fold(facts ...Fact) {
	r.t.Helper()
	r.replay(facts...)
	for _, f := range facts {
		if r.want[f.Repository] == nil {
			r.want[f.Repository] = map[Class]int64{}
		}
		r.want[f.Repository][f.Class]++
	}
}

// replay folds what ought not to count again.
func (r *replica) replay(facts ...Fact) {
	r.t.Helper()
	for i := range facts {
		r.seq++
		facts[i].Seq = r.seq
	}
	if err := r.c.Fold(r.journal, 1, r.seq, facts, nil); err != nil {
		r.t.Fatal(err)
	}
}

func (r *replica) publish() int {
	r.t.Helper()
	n, err := r.c.Publish(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

// some makes facts for repositories and tags drawn at random.
func some(rnd *rand.Rand, n int) []Fact {
	classes := []Class{Pull, Child, Head, Artifact, Ignored}
	list := make([]Fact, n)
	for i := range list {
		list[i] = Fact{
			Repository: fmt.Sprintf("team/app-%d", rnd.IntN(40)),
			Tag:        fmt.Sprintf("v%d", rnd.IntN(5)),
			Class:      classes[rnd.IntN(len(classes))],
			Time:       noon.AddDate(0, 0, -rnd.IntN(3)),
		}
	}
	return list
}

// checkSum compares what Redis shows with what the replicas counted: totals,
// and that tags and days add up to them.
func checkSum(t testing.TB, client redis.UniversalClient, replicas ...*replica) {
	t.Helper()
	want := map[string]map[Class]int64{}
	for _, r := range replicas {
		for name, counts := range r.want {
			if want[name] == nil {
				want[name] = map[Class]int64{}
			}
			for class, n := range counts {
				want[name][class] += n
			}
		}
	}
	checkSource(t, &Sum{Redis: client, Now: at(noon)}, want)
}

func checkSource(t testing.TB, s Source, want map[string]map[Class]int64) {
	t.Helper()
	list, err := s.Repositories(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]map[Class]int64{}
	for _, totals := range list {
		got[totals.Name] = totals.Counts
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("totals:\n got %v\nwant %v", got, want)
	}
	for name := range want {
		totals, tags, ok, err := s.Repository(t.Context(), name)
		if err != nil || !ok {
			t.Fatalf("Repository(%s) = %v, %v", name, ok, err)
		}
		days, err := s.Daily(t.Context(), name, 10)
		if err != nil {
			t.Fatal(err)
		}
		var dayCounts []map[Class]int64
		for _, d := range days {
			dayCounts = append(dayCounts, d.Counts)
		}
		for what, sum := range map[string]map[Class]int64{
			"total": totals.Counts, "tags": addUp(maps.Values(tags)), "days": addUp(values(dayCounts)),
		} {
			if !maps.Equal(sum, want[name]) {
				t.Fatalf("%s of %s = %v, want %v", what, name, sum, want[name])
			}
		}
	}
}

func values[T any](list []T) func(func(T) bool) {
	return func(yield func(T) bool) {
		for _, v := range list {
			if !yield(v) {
				return
			}
		}
	}
}

func addUp(list func(func(map[Class]int64) bool)) map[Class]int64 {
	sum := map[Class]int64{}
	for counts := range list {
		for class, n := range counts {
			sum[class] += n
		}
	}
	return sum
}

func TestPublishSendsWhatChanged(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client()
	r := newReplica(t, "aaaa", client)
	r.fold(some(rand.New(rand.NewPCG(1, 1)), 500)...)
	r.publish()
	checkSum(t, client, r)
	if n := r.publish(); n != 0 {
		t.Errorf("nothing changed, and %d rows were sent", n)
	}
	r.fold(Fact{Repository: "team/app-1", Tag: "v1", Class: Pull, Time: noon})
	if n := r.publish(); n != 3 {
		t.Errorf("a pull sent %d rows, want its total, its tag and its day", n)
	}
	checkSum(t, client, r)
	r.reopen()
	if n := r.publish(); n != 0 {
		t.Errorf("after a restart %d rows were sent again", n)
	}
}

func TestWhatRedisLosesIsSentAgain(t *testing.T) {
	t.Parallel()
	var dump []byte
	lose := map[string]func(*redistest.Server){
		"flushed":        func(s *redistest.Server) { s.Flush() },
		"killed":         func(s *redistest.Server) { s.Restart() },
		"older dump":     func(s *redistest.Server) { s.Restore(dump) },
		"same dump":      func(s *redistest.Server) { s.Dump(); s.Restart() },
		"nothing at all": func(*redistest.Server) {},
	}
	for _, name := range []string{"flushed", "older dump", "killed", "same dump", "nothing at all"} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t)
			client := server.Client()
			rnd := rand.New(rand.NewPCG(2, 2))
			a, b := newReplica(t, "aaaa", client), newReplica(t, "bbbb", client)
			for _, r := range []*replica{a, b} {
				r.fold(some(rnd, 300)...)
				r.publish()
			}
			dump = server.Dump()
			for _, r := range []*replica{a, b} {
				r.fold(some(rnd, 100)...)
				r.publish()
			}
			b.fold(some(rnd, 50)...)

			lose[name](server)

			a.publish() // has nothing new
			b.publish()
			checkSum(t, client, a, b)
		})
	}
}

// TestLossWhileSending loses everything between two calls of a round: the
// second call must not pass over what the first one wrote.
func TestLossWhileSending(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client()
	r := newReplica(t, "aaaa", client)
	for i := range 200 {
		r.fold(Fact{Repository: "team/app", Tag: fmt.Sprintf("v%d", i), Class: Pull, Time: noon})
	}
	r.publish()
	early := server.Dump()
	for name, lose := range map[string]func(){
		"flushed":    server.Flush,
		"older dump": func() { server.Restore(early) },
	} {
		for i := range 600 {
			r.fold(Fact{Repository: "team/app", Tag: fmt.Sprintf("v%d", i), Class: Pull, Time: noon})
		}
		hook := &beforeCall{n: 2, do: lose}
		hooked := server.Client()
		hooked.AddHook(hook)
		r.c.cfg.Redis = hooked
		r.publish()
		r.c.cfg.Redis = client
		if hook.n > 0 {
			t.Fatalf("%s: the round had less than two calls", name)
		}
		checkSum(t, client, r)
	}
}

// beforeCall does something before the n-th call of a script.
type beforeCall struct {
	n  int
	do func()
}

func (b *beforeCall) DialHook(next redis.DialHook) redis.DialHook { return next }
func (b *beforeCall) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (b *beforeCall) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if strings.HasPrefix(cmd.Name(), "eval") {
			if b.n--; b.n == 0 {
				b.do()
			}
		}
		return next(ctx, cmd)
	}
}

// answerLost runs calls without letting their answer through: failed, yet
// applied.
type answerLost struct {
	beforeCall
	applied bool
}

var errNoAnswer = errors.New("connection reset by test")

func (a *answerLost) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if !strings.HasPrefix(cmd.Name(), "eval") {
			return next(ctx, cmd)
		}
		if a.applied {
			next(ctx, cmd)
		}
		cmd.SetErr(errNoAnswer)
		return errNoAnswer
	}
}

func TestCallsThatFail(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ applied, first bool }{{false, false}, {true, false}, {false, true}, {true, true}} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			client := server.Client()
			r := newReplica(t, "aaaa", client)
			rnd := rand.New(rand.NewPCG(3, 3))
			r.fold(some(rnd, 100)...)
			if !c.first {
				r.publish()
				r.fold(some(rnd, 100)...)
			}
			bad := server.Client()
			bad.AddHook(&answerLost{applied: c.applied})
			r.c.cfg.Redis = bad
			for range 2 {
				r.fold(some(rnd, 1)...)
				if _, err := r.c.Publish(t.Context()); !errors.Is(err, errNoAnswer) {
					t.Fatalf("Publish = %v, want the connection's error", err)
				}
			}
			if s := r.c.Status(); s.Error == "" {
				t.Error("the status does not say that publishing failed")
			}
			r.c.cfg.Redis = client
			r.publish()
			checkSum(t, client, r)
			if !r.c.publisher.lossLogged.IsZero() {
				t.Error("Redis is said to have lost numbers, and only an answer was lost")
			}
		})
	}
}

// TestDyingAtAnyTime takes a copy of the disk at moments of its own choosing,
// goes on from it, and folds what the copy had not seen once more.
func TestDyingAtAnyTime(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client()
	rnd := rand.New(rand.NewPCG(4, 4))
	fs := vfs.NewCrashableMem()
	db := openState(t, fs)
	c := open(t, db, Config{Redis: client})
	r := &replica{want: map[string]map[Class]int64{}}
	var journal []Fact
	for step := range 60 {
		facts := some(rnd, 1+rnd.IntN(20))
		journal = append(journal, facts...)
		for _, f := range facts {
			if r.want[f.Repository] == nil {
				r.want[f.Repository] = map[Class]int64{}
			}
			r.want[f.Repository][f.Class]++
		}
		done := c.Cursor("aaaa", 1)
		if err := c.Fold("aaaa", 1, uint64(len(journal)), journal[done:], nil); err != nil {
			t.Fatal(err)
		}
		if rnd.IntN(2) == 0 {
			if _, err := c.Publish(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if step%5 != 4 {
			continue
		}
		// Nothing that was not synced survives, or any part of it.
		fs = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rnd.IntN(2) * 50, RNG: rnd})
		db.Close()
		db = openState(t, fs)
		c = open(t, db, Config{Redis: client})
		if got := c.Cursor("aaaa", 1); got != uint64(len(journal)) {
			t.Fatalf("the cursor is %d after a crash, and Fold had returned for %d", got, len(journal))
		}
	}
	if _, err := c.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	db.Close()
	checkSum(t, client, r)
}

func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client()
	a, b := newReplica(t, "aaaa", client), newReplica(t, "bbbb", client)
	var wg sync.WaitGroup
	for i, r := range []*replica{a, b} {
		ctx, stop := context.WithCancel(t.Context())
		r.c.cfg.Interval = time.Millisecond
		done := make(chan struct{})
		go func() { defer close(done); r.c.Run(ctx) }()
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(5, uint64(i)))
			for range 150 {
				r.fold(some(rnd, 5)...)
			}
			stop()
			<-done
		})
	}
	for range 5 {
		time.Sleep(20 * time.Millisecond)
		server.Flush()
	}
	wg.Wait()
	a.publish()
	b.publish()
	checkSum(t, client, a, b)
}

// TestFromEmbeddedToRedis: what was counted without Redis is sent when there
// is one, also when there was one before.
func TestFromEmbeddedToRedis(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client()
	r := newReplica(t, "aaaa", nil)
	rnd := rand.New(rand.NewPCG(8, 8))
	for _, c := range []redis.UniversalClient{nil, client, nil, client} {
		r.cfg.Redis = c
		r.reopen()
		r.fold(some(rnd, 50)...)
		r.publish()
	}
	checkSum(t, client, r)
}

func TestLastTimes(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client()
	a, b := newReplica(t, "aaaa", client), newReplica(t, "bbbb", client)
	a.fold(Fact{Repository: "x", Class: Pull, Time: noon}, Fact{Repository: "x", Class: Head, Time: noon.Add(time.Hour)})
	b.fold(Fact{Repository: "x", Class: Pull, Time: noon.Add(-time.Hour)}, Fact{Repository: "x", Class: Push, Time: noon.Add(-2 * time.Hour)})
	for range 2 {
		a.publish()
		b.publish()
		got, _, _, err := (&Sum{Redis: client}).Repository(t.Context(), "x")
		if err != nil || !got.LastPull.Equal(noon) || !got.LastPush.Equal(noon.Add(-2*time.Hour)) {
			t.Fatalf("last pull %v, last push %v, %v", got.LastPull, got.LastPush, err)
		}
		server.Flush()
	}
}

func TestReplicasLearnChildren(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client()
	rule, err := NewClassifier(ClassifierConfig{})
	if err != nil {
		t.Fatal(err)
	}
	a := newReplica(t, "aaaa", client)
	db := openState(t, vfs.NewMem())
	defer db.Close()
	b := open(t, db, Config{Redis: client, Learn: rule.Learn})
	a.fold(Fact{Repository: "x", Class: Pull, Time: noon, Children: []string{digest(1), digest(2)}})
	a.publish()
	if _, err := b.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if class, _, _ := rule.Class(Request{Method: "GET", Repository: "x", Digest: digest(2)}); class != Child {
		t.Errorf("class %s, want child: the other replica had seen the index", class)
	}
	// The index is deleted through either.
	if err := b.Fold("bbbb", 1, 1, []Fact{{Repository: "x", Digest: digest(3), Children: []string{digest(4)}}}, nil); err != nil {
		t.Fatal(err)
	}
	a.fold(Fact{Repository: "x", Deleted: true}, Fact{Repository: "x", Digest: digest(3), Deleted: true}, Fact{Repository: "x", Digest: digest(5), Supporting: true})
	a.publish()
	if _, err := b.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	for n, want := range map[int]Class{2: Pull, 4: Pull, 5: Artifact} {
		if class, _, _ := rule.Class(Request{Method: "GET", Repository: "x", Digest: digest(n)}); class != want {
			t.Errorf("%d is %s after the other replica has told, want %s", n, class, want)
		}
	}
	if all, err := b.Children(); err != nil || len(all) != 0 {
		t.Errorf("%v are stored, %v", all, err)
	}
}

func TestRunSurvivesRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client()
	r := newReplica(t, "aaaa", client)
	r.c.cfg.Interval = 5 * time.Millisecond
	r.c.cfg.Now = time.Now
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.c.Run(ctx) }()
	until := func(what string, ok func(Status) bool) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); !ok(r.c.Status()); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: status %+v", what, r.c.Status())
			}
		}
	}
	until("before", func(s Status) bool { return !s.Current.IsZero() && len(s.Warnings) == 1 })
	server.Kill()
	until("killed", func(s Status) bool { return s.Error != "" })
	r.fold(some(rand.New(rand.NewPCG(9, 9)), 100)...)
	server.Restart()
	until("back", func(s Status) bool { return s.Error == "" })
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	r.publish()
	checkSum(t, client, r)
}

func TestPersistenceWarnings(t *testing.T) {
	t.Parallel()
	for info, want := range map[string]int{
		"maxmemory:0\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\n":    0,
		"maxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\naof_enabled:1\r\n":   0,
		"maxmemory:100\r\nmaxmemory_policy:allkeys-lru\r\naof_enabled:1\r\n": 1,
		"maxmemory:100\r\nmaxmemory_policy:allkeys-lru\r\naof_enabled:0\r\n": 2,
	} {
		if got := persistenceWarnings(info); len(got) != want {
			t.Errorf("persistenceWarnings(%q) = %q, want %d reasons", info, got, want)
		}
	}
}

// TestFoldWhileSending: what is counted after a row was read for a call goes
// with the next round.
func TestFoldWhileSending(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client()
	r := newReplica(t, "aaaa", client)
	pull := Fact{Repository: "x", Tag: "v1", Class: Pull, Time: noon}
	r.fold(pull)
	r.publish()
	r.fold(pull)
	hooked := server.Client()
	hooked.AddHook(&beforeCall{n: 1, do: func() { r.fold(pull) }})
	r.c.cfg.Redis = hooked
	r.publish()
	r.c.cfg.Redis = client
	if n := r.publish(); n < 2 || n > 3 {
		t.Errorf("%d rows were sent, want the three that changed meanwhile, one of which may have been compared then", n)
	}
	checkSum(t, client, r)
}

// TestTwoJournalsOfOneDisk: the journal took a new id, and Redis forgets.
func TestTwoJournalsOfOneDisk(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client()
	r := newReplica(t, "aaaa", client)
	rnd := rand.New(rand.NewPCG(15, 15))
	r.fold(append(some(rnd, 200), Fact{Repository: "x", Tag: "v1", Class: Pull, Time: noon.Add(time.Minute)})...)
	r.journal = "bbbb"
	r.fold(append(some(rnd, 200), Fact{Repository: "x", Tag: "v1", Class: Pull, Time: noon})...)
	for range 2 {
		r.publish()
		checkSum(t, client, r)
		got, _, _, err := (&Sum{Redis: client}).Repository(t.Context(), "x")
		if err != nil || !got.LastPull.Equal(noon.Add(time.Minute)) {
			t.Errorf("the last pull was at %v, %v; want that of the older journal", got.LastPull, err)
		}
		server.Flush()
	}
}

func BenchmarkPublish(b *testing.B) {
	client := redistest.Start(b).Client()
	r := newReplica(b, "aaaa", client)
	rnd := rand.New(rand.NewPCG(16, 16))
	b.Run("all", func(b *testing.B) {
		facts := make([]Fact, 20_000)
		for i := range facts {
			facts[i] = Fact{Repository: fmt.Sprintf("r%d", rnd.IntN(2000)), Tag: fmt.Sprintf("v%d", i%20), Class: Pull, Time: noon}
		}
		r.fold(facts...)
		n := 0
		for b.Loop() {
			r.c.publisher.compareAll()
			r.publish()
			n += r.c.publisher.comparison.last
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/row")
	})
	b.Run("pulls", func(b *testing.B) {
		for b.Loop() {
			for range 256 {
				r.fold(Fact{Repository: fmt.Sprintf("r%d", rnd.IntN(2000)), Tag: "v1", Class: Pull, Time: noon})
			}
			r.publish()
		}
		b.Log(client.Info(b.Context(), "commandstats").Val())
	})
	b.Run("nothing", func(b *testing.B) {
		for b.Loop() {
			r.publish()
		}
	})
}
