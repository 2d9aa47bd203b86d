package counter

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tidings-dev/tidings/notifier/counter/redistest"
)

func pulls(n int) []Fact {
	list := make([]Fact, n)
	for i := range list {
		list[i] = Fact{Repository: "x", Tag: "v1", Class: Pull, Time: noon}
	}
	return list
}

// clock is one that a test sets.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func idsIn(t testing.TB, client redis.UniversalClient) []string {
	t.Helper()
	ids, err := client.HKeys(t.Context(), newKeyspace("").ids()).Result()
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(ids)
	return ids
}

// answers waits until the client has noticed that Redis is back.
func answers(t testing.TB, client redis.UniversalClient) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); client.Ping(t.Context()).Err() != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("Redis does not come back")
		}
	}
}

// TestStateLost: the numbers of a folder are lost and its journal is not. What is
// folded again counts once.
func TestStateLost(t *testing.T) {
	t.Parallel()
	for _, reached := range []bool{true, false} {
		server := redistest.Start(t)
		client := server.Client()
		r := newReplica(t, "aaaa", client)
		r.cfg.Journal = func() string { return "aaaa" }
		r.reopen()
		r.fold(pulls(60)...)
		r.publish()
		r.fold(pulls(7)...) // which Redis does not hear of
		r.db.Close()

		lost := newReplica(t, "aaaa", client)
		lost.cfg, lost.last = r.cfg, r.seq
		away := unreachable{now: !reached}
		cut := server.Client()
		cut.AddHook(&away)
		lost.cfg.Redis = cut
		lost.reopen()
		lost.replay(pulls(67)...)
		away.now = false
		lost.fold(pulls(5)...)
		lost.publish()
		lost.reopen()
		lost.fold(pulls(1)...)
		lost.publish()
		if !reached { // all events of before are taken for known
			r.want["x"][Pull] = 60
		}
		checkSum(t, client, r, lost)
		if n := len(idsIn(t, client)); n != 2 {
			t.Errorf("%d ids, want two", n)
		}
	}
}

// afterFetch does something when fields were read.
type afterFetch struct {
	beforeCall
	do func()
}

func (a *afterFetch) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if cmds[0].Name() == "hget" {
			defer a.do()
		}
		return next(ctx, cmds)
	}
}

func (a *afterFetch) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

// TestSetBackAfterKill: a process is killed that has told Redis that it lives, and
// not yet what it counted. From an older copy of its numbers, its journal is
// folded again.
func TestSetBackAfterKill(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client()
	now := &clock{noon}
	r := newReplica(t, "aaaa", client)
	r.cfg.Now = now.now
	r.reopen()
	r.fold(pulls(60)...)
	r.publish()
	back := r.copied()
	r.reopen()
	r.fold(pulls(10)...)
	r.publish()
	folded := false
	hooked := server.Client()
	hooked.AddHook(&afterFetch{do: func() {
		if !folded {
			folded = true
			r.fold(pulls(30)...) // Redis does not hear of these
		}
	}})
	r.c.cfg.Redis = hooked
	now.at = now.at.Add(heartbeatInterval)
	r.publish()
	if !folded {
		t.Fatal("nothing was compared")
	}
	r.db.Close()

	back.last = r.seq
	back.open()
	back.replay(pulls(40)...)
	back.publish()
	checkSum(t, client, r)
}

// TestFolderSetBack: what Redis has of the lost part stays, and what is counted
// from then on is added.
func TestFolderSetBack(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client()
	r := newReplica(t, "aaaa", client)
	r.fold(pulls(60)...)
	r.publish()
	back := r.copied()
	r.fold(pulls(45)...)
	r.publish()
	r.db.Close()

	back.open()
	back.fold(pulls(30)...)
	back.publish()
	checkSum(t, client, r, back)
	back.reopen()
	back.fold(pulls(10)...)
	back.publish()
	checkSum(t, client, r, back)
	if n := len(idsIn(t, client)); n != 2 {
		t.Errorf("%d ids, want two", n)
	}
	local := &replica{want: map[string]map[Class]int64{"x": {Pull: 100}}}
	checkSource(t, back.c, local.want)

	// What Redis loses now comes from this disk, the older id's numbers too.
	server.Flush()
	back.fold(pulls(1)...)
	back.publish()
	local.want["x"][Pull]++
	checkSource(t, &Sum{Redis: client, Now: at(noon), Check: back.c.Check}, local.want)
}

// TestSetBackWithRedisAway: the folder is restarted a few times before Redis
// says what it has.
func TestSetBackWithRedisAway(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client()
	r := newReplica(t, "aaaa", client)
	r.fold(pulls(60)...)
	r.publish()
	back := r.copied()
	r.fold(pulls(45)...)
	r.publish()
	r.db.Close()
	server.Dump()
	server.Kill()

	back.cfg.AskTimeout = 50 * time.Millisecond
	back.open()
	for range 3 {
		back.fold(pulls(20)...)
		back.reopen()
	}
	server.Restart()
	answers(t, client)
	back.fold(pulls(5)...)
	back.publish()
	checkSum(t, client, r, back)
}

// TestStateSetBackAlone: the journal still has what the state has lost, and
// Redis has counted most of it.
func TestStateSetBackAlone(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client()
	r := newReplica(t, "aaaa", client)
	r.fold(pulls(60)...)
	r.publish()
	back := r.copied()
	r.fold(pulls(45)...)
	r.publish()
	r.fold(pulls(7)...) // which Redis does not have
	r.db.Close()

	back.last = r.seq
	back.open()
	back.replay(pulls(52)...)
	back.fold(pulls(30)...)
	back.publish()
	checkSum(t, client, r, back)
	checkSource(t, back.c, map[string]map[Class]int64{"x": {Pull: 60 + 52 + 30}})

	server.Flush() // and all of it is here
	back.publish()
	checkSum(t, client, r, back)
}

// TestCloneBeside: a copy of a running registry's folder runs too.
func TestCloneBeside(t *testing.T) {
	t.Parallel()
	for name, started := range map[string]struct{ unsent, inJournal int }{
		"all was sent": {}, "something was not": {unsent: 8}, "something was not folded": {inJournal: 9}, "neither": {3, 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := redistest.Start(t).Client()
			now := &clock{noon}
			r := newReplica(t, "aaaa", client)
			r.cfg.Instance, r.cfg.Now = "here", now.now
			r.reopen()
			r.fold(pulls(60)...)
			r.publish()
			if started.unsent > 0 {
				r.fold(pulls(started.unsent)...)
			}
			clone := r.copied()
			clone.cfg.Instance = "there"
			clone.last = r.seq + uint64(started.inJournal)
			r.fold(pulls(started.inJournal)...)
			clone.open()
			clone.replay(pulls(started.inJournal)...)
			sends := func() error {
				_, err := clone.c.Publish(t.Context())
				return err
			}
			for range 8 {
				clone.fold(pulls(5)...)
				r.fold(pulls(2)...)
				r.publish()
				if err := sends(); err != nil && !errors.Is(err, errUndecided) {
					t.Fatal(err)
				}
				now.at = now.at.Add(11 * time.Second)
			}
			if err := sends(); err != nil {
				t.Fatalf("the copy does not send: %v", err)
			}
			checkSum(t, client, r, clone)
			for _, one := range []*replica{clone, r, clone} {
				one.reopen()
				one.fold(pulls(3)...)
				one.publish()
				checkSum(t, client, r, clone)
			}
			if n := len(idsIn(t, client)); n != 2 {
				t.Errorf("%d ids, want one for each", n)
			}
		})
	}
}

// TestCloneAfterAFlush: a copy starts when Redis has just lost everything, and
// before the registry that runs has noticed.
func TestCloneAfterAFlush(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client()
	now := &clock{noon}
	r := newReplica(t, "aaaa", client)
	r.cfg.Instance, r.cfg.Now = "here", now.now
	r.reopen()
	r.fold(pulls(60)...)
	r.publish()
	clone := r.copied()
	clone.cfg.Instance = "there"
	r.fold(pulls(10)...)
	r.publish()
	server.Flush()
	clone.open()
	clone.fold(pulls(5)...)
	if _, err := clone.c.Publish(t.Context()); !errors.Is(err, errUndecided) {
		t.Fatalf("Publish = %v, want the copy to watch first", err)
	}
	r.publish()
	for _, one := range []*replica{clone, r, clone} {
		one.fold(pulls(2)...)
		one.publish()
	}
	checkSum(t, client, r, clone)
}

// TestCloneOfAStoppedFolder: the copy starts first and goes on as the folder
// that it is a copy of; then that one starts.
func TestCloneOfAStoppedFolder(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client()
	now := &clock{noon}
	r := newReplica(t, "aaaa", client)
	r.cfg.Instance, r.cfg.Now = "here", now.now
	r.reopen()
	r.fold(pulls(60)...)
	r.publish()
	r.fold(pulls(6)...)
	r.db.Close()
	clone := r.copied()
	clone.cfg.Instance = "there"
	clone.open()
	clone.fold(pulls(5)...)
	if _, err := clone.c.Publish(t.Context()); !errors.Is(err, errUndecided) {
		t.Fatalf("Publish = %v, want the copy to watch first", err)
	}
	now.at = now.at.Add(46 * time.Second)
	clone.publish()
	if n := len(idsIn(t, client)); n != 1 {
		t.Fatalf("%d ids; a folder that was moved keeps its own", n)
	}
	checkSum(t, client, r, clone)
	r.open()
	for range 3 {
		r.fold(pulls(4)...)
		clone.fold(pulls(3)...)
		clone.publish()
		if _, err := r.c.Publish(t.Context()); err != nil && !errors.Is(err, errUndecided) {
			t.Fatal(err)
		}
		now.at = now.at.Add(11 * time.Second)
	}
	r.publish()
	checkSum(t, client, r, clone)
}

// TestDeposed: Redis was out of reach of a registry for so long that a copy of
// its folder took its place.
func TestDeposed(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client()
	now := &clock{noon}
	r := newReplica(t, "aaaa", client)
	r.cfg.Instance, r.cfg.Now = "here", now.now
	r.reopen()
	r.fold(pulls(60)...)
	r.publish()
	clone := r.copied()
	clone.cfg.Instance = "there"
	r.fold(pulls(10)...)
	clone.open()
	if _, err := clone.c.Publish(t.Context()); !errors.Is(err, errUndecided) {
		t.Fatal(err)
	}
	now.at = now.at.Add(time.Minute)
	clone.fold(pulls(5)...)
	clone.publish()
	for range 2 {
		r.fold(pulls(7)...)
		r.publish()
		clone.fold(pulls(1)...)
		clone.publish()
		checkSum(t, client, r, clone)
	}
}

// TestRestartAtOnce: a registry that was killed goes on under its id without
// waiting, whether the answer to its last call was lost or not.
func TestRestartAtOnce(t *testing.T) {
	t.Parallel()
	for _, lost := range []bool{false, true} {
		server := redistest.Start(t)
		client := server.Client()
		r := newReplica(t, "aaaa", client)
		r.cfg.Instance = "here"
		r.reopen()
		r.fold(pulls(60)...)
		r.publish()
		if lost {
			r.fold(pulls(3)...)
			bad := server.Client()
			bad.AddHook(&answerLost{applied: true})
			r.c.cfg.Redis = bad
			if _, err := r.c.Publish(t.Context()); err == nil {
				t.Fatal("the answer was not lost")
			}
		}
		r.fold(pulls(7)...)
		r.reopen()
		r.fold(pulls(3)...)
		if n := r.publish(); n > 3 {
			t.Errorf("%d rows were sent, want those that changed", n)
		}
		checkSum(t, client, r)
		if n := len(idsIn(t, client)); n != 1 {
			t.Errorf("%d ids, want the one", n)
		}
	}
}

// TestMovedAfterAnOrderlyEnd: a folder that was let go of is taken at once.
func TestMovedAfterAnOrderlyEnd(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client()
	r := newReplica(t, "aaaa", client)
	r.cfg.Instance = "here"
	r.reopen()
	r.fold(pulls(6)...)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.c.Run(ctx) }()
	for r.c.Status().Current.IsZero() {
		time.Sleep(time.Millisecond)
	}
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	r.db.Close()
	r.cfg.Instance = "there"
	r.open()
	r.fold(pulls(6)...)
	r.publish()
	checkSum(t, client, r)
	if n := len(idsIn(t, client)); n != 1 {
		t.Errorf("%d ids, want the one", n)
	}
}

// unreachable fails every command while it is set.
type unreachable struct{ now bool }

func (u *unreachable) DialHook(next redis.DialHook) redis.DialHook { return next }

func (u *unreachable) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if u.now {
			cmd.SetErr(errNoAnswer)
			return errNoAnswer
		}
		return next(ctx, cmd)
	}
}

func (u *unreachable) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if u.now {
			return errNoAnswer
		}
		return next(ctx, cmds)
	}
}

// TestFoldersAtRandom kills, copies and sets back folders, makes Redis
// unreachable and loses its answers: no fact counts twice, and none that Redis
// had is missing. In some histories Redis is flushed too; then what only a
// folder knew that is gone may be missing. (Flushed in the moment between a copy
// finding out that it is one and entering its runs, Redis can count the few
// facts twice that were on their way when the copy was made. These histories
// have no such moment.)
func TestFoldersAtRandom(t *testing.T) {
	t.Parallel()
	for seed := range uint64(45) {
		losses := seed%3 == 2
		t.Run(fmt.Sprintf("%d, losses %v", seed, losses), func(t *testing.T) {
			t.Parallel()
			foldersAtRandom(t, rand.New(rand.NewPCG(seed, 77)), losses)
		})
	}
}

func foldersAtRandom(t *testing.T, rnd *rand.Rand, losses bool) {
	server := redistest.Start(t)
	client := server.Client()
	var away unreachable
	cut := server.Client()
	cut.AddHook(&away)
	now := &clock{noon}
	next := 0 // each fact is a tag of its own
	type folder struct {
		*replica
		unsent []string
		copy   *folder
	}
	must, may := map[string]bool{}, map[string]bool{}
	open := func(f *folder) {
		f.cfg.Now = now.now
		f.open()
	}
	first := &folder{replica: newReplica(t, "aaaa", cut)}
	first.cfg.Instance = "0"
	first.cfg.AskTimeout = 50 * time.Millisecond
	first.db.Close()
	open(first)
	folders := []*folder{first}
	instances := 1
	sent := func(f *folder) {
		for _, tag := range f.unsent {
			must[tag] = true
		}
		f.unsent = nil
	}
	fold := func(f *folder) {
		for range 1 + rnd.IntN(4) {
			next++
			tag := fmt.Sprintf("t%d", next)
			may[tag] = true
			f.unsent = append(f.unsent, tag)
			f.replay(Fact{Repository: "x", Tag: tag, Class: Pull, Time: noon})
		}
	}
	publish := func(f *folder) {
		if _, err := f.c.Publish(t.Context()); err == nil {
			sent(f)
		} else if !errors.Is(err, errUndecided) && !away.now {
			t.Fatal(err)
		}
	}
	copyOf := func(f *folder, instance string) *folder {
		c := f.copied()
		c.cfg.Instance = instance
		return &folder{replica: c}
	}
	for range 120 {
		f := folders[rnd.IntN(len(folders))]
		switch op := rnd.IntN(22); {
		case op < 8:
			fold(f)
		case op < 13:
			publish(f)
		case op < 14: // kill -9
			f.db.Close()
			open(f)
		case op < 15:
			f.copy = copyOf(f, f.cfg.Instance)
		case op < 16 && f.copy != nil: // set back
			f.db.Close()
			back := f.copy
			open(back)
			back.copy = nil
			folders[slices.Index(folders, f)] = back
		case op < 17 && len(folders) < 4 && f.c.publisher.claimed: // cloned, while it runs
			instances++
			clone := copyOf(f, fmt.Sprint(instances))
			for _, one := range folders { // nobody is cut off for so long
				publish(one)
			}
			open(clone)
			folders = append(folders, clone)
		case op < 18:
			away.now = !away.now
		case op < 19 && !away.now: // a call that is done, and its answer lost
			lost := server.Client()
			lost.AddHook(&answerLost{applied: true})
			f.c.cfg.Redis = lost
			f.c.Publish(t.Context())
			f.c.cfg.Redis = cut
		case op < 20 && losses && rnd.IntN(4) == 0:
			server.Flush()
		default:
			now.at = now.at.Add(11 * time.Second)
			if !away.now {
				for _, one := range folders {
					publish(one)
				}
			}
		}
	}
	away.now = false
	for range 8 {
		for _, f := range folders {
			publish(f)
		}
		now.at = now.at.Add(11 * time.Second)
	}
	totals, tags, _, err := (&Sum{Redis: client, Now: at(noon)}).Repository(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	for tag, n := range tags {
		if n[Pull] > 1 {
			t.Errorf("%s was counted %d times", tag, n[Pull])
		}
		if !may[tag] {
			t.Errorf("%s was never pulled", tag)
		}
	}
	for _, tag := range slices.Sorted(maps.Keys(must)) {
		if tags[tag] == nil && !losses {
			t.Errorf("%s was in Redis and is gone", tag)
		}
	}
	if totals.Counts[Pull] != int64(len(tags)) {
		t.Errorf("%d pulls in all, want %d", totals.Counts[Pull], len(tags))
	}
}
