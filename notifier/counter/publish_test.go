package counter

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/redis/go-redis/v9"

	"github.com/tidings-dev/tidings/notifier/classify"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/rediscounts"
	"github.com/tidings-dev/tidings/notifier/rediscounts/redistest"
)

func TestPublishSendsChangedRows(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client()
	r := newReplica(t, "aaaa", client)
	r.fold(randomFacts(rand.New(rand.NewPCG(1, 1)), 500)...)
	r.publish()
	checkSum(t, client, r)
	if n := r.publish(); n != 0 {
		t.Errorf("%d rows were sent without a change, want none", n)
	}
	r.fold(counts.Fact{Repository: "team/app-1", Tag: "v1", Class: counts.Pull, Time: noon})
	if n := r.publish(); n != 3 {
		t.Errorf("a pull sent %d rows, want its total, its tag and its day", n)
	}
	checkSum(t, client, r)
	r.reopen()
	if n := r.publish(); n != 0 {
		t.Errorf("%d rows were sent after a restart, want none", n)
	}
}

func TestRedisLoss(t *testing.T) {
	t.Parallel()
	var dump []byte
	lose := map[string]func(*redistest.Server){
		"flushed":    func(s *redistest.Server) { s.Flush() },
		"killed":     func(s *redistest.Server) { s.Restart() },
		"older dump": func(s *redistest.Server) { s.Restore(dump) },
		"same dump":  func(s *redistest.Server) { s.Dump(); s.Restart() },
		"no loss":    func(*redistest.Server) {},
	}
	for _, name := range []string{"flushed", "older dump", "killed", "same dump", "no loss"} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t)
			client := server.Client()
			rnd := rand.New(rand.NewPCG(2, 2))
			a, b := newReplica(t, "aaaa", client), newReplica(t, "bbbb", client)
			for _, r := range []*replica{a, b} {
				r.fold(randomFacts(rnd, 300)...)
				r.publish()
			}
			dump = server.Dump()
			for _, r := range []*replica{a, b} {
				r.fold(randomFacts(rnd, 100)...)
				r.publish()
			}
			b.fold(randomFacts(rnd, 50)...)

			lose[name](server)

			a.publish() // has nothing new
			b.publish()
			checkSum(t, client, a, b)
		})
	}
}

// TestRedisLossWhileSending loses everything between two calls of a round: the rows of the
// first call are sent again.
func TestRedisLossWhileSending(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client()
	r := newReplica(t, "aaaa", client)
	for i := range 200 {
		r.fold(counts.Fact{Repository: "team/app", Tag: fmt.Sprintf("v%d", i), Class: counts.Pull, Time: noon})
	}
	r.publish()
	early := server.Dump()
	for name, lose := range map[string]func(){
		"flushed":    server.Flush,
		"older dump": func() { server.Restore(early) },
	} {
		for i := range 600 {
			r.fold(counts.Fact{Repository: "team/app", Tag: fmt.Sprintf("v%d", i), Class: counts.Pull, Time: noon})
		}
		hook := &beforeCall{n: 2, do: lose}
		hooked := server.Client()
		hooked.AddHook(hook)
		r.c.redis = inRedis(hooked)
		r.publish()
		r.c.redis = inRedis(client)
		if hook.n > 0 {
			t.Fatalf("%s: the round had fewer than two calls", name)
		}
		checkSum(t, client, r)
	}
}

func TestFailedCalls(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ applied, first bool }{{false, false}, {true, false}, {false, true}, {true, true}} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			client := server.Client()
			r := newReplica(t, "aaaa", client)
			rnd := rand.New(rand.NewPCG(3, 3))
			r.fold(randomFacts(rnd, 100)...)
			if !c.first {
				r.publish()
				r.fold(randomFacts(rnd, 100)...)
			}
			bad := server.Client()
			bad.AddHook(&lostAnswer{applied: c.applied})
			r.c.redis = inRedis(bad)
			for range 2 {
				r.fold(randomFacts(rnd, 1)...)
				if _, err := r.c.Publish(t.Context()); !errors.Is(err, errNoAnswer) {
					t.Fatalf("Publish = %v, want the connection's error", err)
				}
			}
			if s := r.c.Status(); s.Error == "" {
				t.Error("the status has no error after a failed round")
			}
			r.c.redis = inRedis(client)
			r.publish()
			checkSum(t, client, r)
			if !r.c.publisher.lossLogged.IsZero() {
				t.Error("a loss of counts is logged after a lost response")
			}
		})
	}
}

// TestRandomCrashes continues from copies of the disk that were taken at random times, and
// folds the events again that a copy does not have.
func TestRandomCrashes(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client()
	rnd := rand.New(rand.NewPCG(4, 4))
	fs := vfs.NewCrashableMem()
	db := openState(t, fs)
	c := open(t, db, Config{Redis: inRedis(client)})
	r := &replica{want: map[string]map[counts.Class]int64{}}
	var journal []counts.Fact
	for step := range 60 {
		facts := randomFacts(rnd, 1+rnd.IntN(20))
		journal = append(journal, facts...)
		for _, f := range facts {
			if r.want[f.Repository] == nil {
				r.want[f.Repository] = map[counts.Class]int64{}
			}
			r.want[f.Repository][f.Class]++
		}
		done := cursor(c, "aaaa", 1)
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
		// Any part of what was not synced may be lost.
		fs = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rnd.IntN(2) * 50, RNG: rnd})
		db.Close()
		db = openState(t, fs)
		c = open(t, db, Config{Redis: inRedis(client)})
		if got := cursor(c, "aaaa", 1); got != uint64(len(journal)) {
			t.Fatalf("the cursor is %d after a crash, want %d, for which Fold had returned", got, len(journal))
		}
	}
	if _, err := c.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	db.Close()
	checkSum(t, client, r)
}

func TestConcurrentReplicas(t *testing.T) {
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
				r.fold(randomFacts(rnd, 5)...)
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

// TestRedisAddedAndRemoved: what was counted without Redis is sent after Redis was added to
// the options, also for the second time.
func TestRedisAddedAndRemoved(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client()
	r := newReplica(t, "aaaa", nil)
	rnd := rand.New(rand.NewPCG(8, 8))
	for _, c := range []redis.UniversalClient{nil, client, nil, client} {
		r.cfg.Redis = inRedis(c)
		r.reopen()
		r.fold(randomFacts(rnd, 50)...)
		r.publish()
	}
	checkSum(t, client, r)
}

func TestLastTimes(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client()
	a, b := newReplica(t, "aaaa", client), newReplica(t, "bbbb", client)
	a.fold(counts.Fact{Repository: "x", Class: counts.Pull, Time: noon}, counts.Fact{Repository: "x", Class: counts.Head, Time: noon.Add(time.Hour)})
	b.fold(counts.Fact{Repository: "x", Class: counts.Pull, Time: noon.Add(-time.Hour)}, counts.Fact{Repository: "x", Class: counts.Push, Time: noon.Add(-2 * time.Hour)})
	for range 2 {
		a.publish()
		b.publish()
		got, _, _, err := (&rediscounts.Sum{DB: inRedis(client)}).Repository(t.Context(), "x")
		if err != nil || !got.LastPull.Equal(noon) || !got.LastPush.Equal(noon.Add(-2*time.Hour)) {
			t.Fatalf("last pull %v, last push %v, %v", got.LastPull, got.LastPush, err)
		}
		server.Flush()
	}
}

func TestReplicasLearnChildren(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client()
	rule := newClassifier(t, classify.Config{})
	a := newReplica(t, "aaaa", client)
	db := openState(t, vfs.NewMem())
	defer db.Close()
	b := open(t, db, Config{Redis: inRedis(client), Learn: rule.Learn})
	a.fold(counts.Fact{Repository: "x", Class: counts.Pull, Time: noon, Children: []string{digest(1), digest(2)}})
	a.publish()
	if _, err := b.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if class, _, _ := rule.Class(classify.Request{Method: "GET", Repository: "x", Digest: digest(2)}); class != counts.Child {
		t.Errorf("class %s, want child: the other replica knows the index", class)
	}
	// The index is deleted through one of them.
	if err := b.Fold("bbbb", 1, 1, []counts.Fact{{Repository: "x", Digest: digest(3), Children: []string{digest(4)}}}, nil); err != nil {
		t.Fatal(err)
	}
	a.fold(counts.Fact{Repository: "x", Deleted: true}, counts.Fact{Repository: "x", Digest: digest(3), Deleted: true}, counts.Fact{Repository: "x", Digest: digest(5), Supporting: true})
	a.publish()
	if _, err := b.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	for n, want := range map[int]counts.Class{2: counts.Pull, 4: counts.Pull, 5: counts.Artifact} {
		if class, _, _ := rule.Class(classify.Request{Method: "GET", Repository: "x", Digest: digest(n)}); class != want {
			t.Errorf("%d is %s after the other replica has published, want %s", n, class, want)
		}
	}
	if all, err := b.Children(); err != nil || len(all) != 0 {
		t.Errorf("stored children %v, %v; want none", all, err)
	}
}

func TestRunWhileRedisRestarts(t *testing.T) {
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
	r.fold(randomFacts(rand.New(rand.NewPCG(9, 9)), 100)...)
	server.Restart()
	until("back", func(s Status) bool { return s.Error == "" })
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	r.publish()
	checkSum(t, client, r)
}

// TestFoldWhileSending: what is counted after a row was read for a call is sent in the next
// round.
func TestFoldWhileSending(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client()
	r := newReplica(t, "aaaa", client)
	pull := counts.Fact{Repository: "x", Tag: "v1", Class: counts.Pull, Time: noon}
	r.fold(pull)
	r.publish()
	r.fold(pull)
	hooked := server.Client()
	hooked.AddHook(&beforeCall{n: 1, do: func() { r.fold(pull) }})
	r.c.redis = inRedis(hooked)
	r.publish()
	r.c.redis = inRedis(client)
	if n := r.publish(); n < 2 || n > 3 {
		t.Errorf("%d rows were sent, want the three that changed in the meantime, one of which may have been compared already", n)
	}
	checkSum(t, client, r)
}

// TestJournalWithNewID: the journal has a new id, and Redis is flushed.
func TestJournalWithNewID(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client()
	r := newReplica(t, "aaaa", client)
	rnd := rand.New(rand.NewPCG(15, 15))
	r.fold(append(randomFacts(rnd, 200), counts.Fact{Repository: "x", Tag: "v1", Class: counts.Pull, Time: noon.Add(time.Minute)})...)
	r.journal = "bbbb"
	r.fold(append(randomFacts(rnd, 200), counts.Fact{Repository: "x", Tag: "v1", Class: counts.Pull, Time: noon})...)
	for range 2 {
		r.publish()
		checkSum(t, client, r)
		got, _, _, err := (&rediscounts.Sum{DB: inRedis(client)}).Repository(t.Context(), "x")
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
		facts := make([]counts.Fact, 20_000)
		for i := range facts {
			facts[i] = counts.Fact{Repository: fmt.Sprintf("r%d", rnd.IntN(2000)), Tag: fmt.Sprintf("v%d", i%20), Class: counts.Pull, Time: noon}
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
				r.fold(counts.Fact{Repository: fmt.Sprintf("r%d", rnd.IntN(2000)), Tag: "v1", Class: counts.Pull, Time: noon})
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
