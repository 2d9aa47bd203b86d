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

	"github.com/tidings-dev/tidings/internal/race"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/rediscounts"
	"github.com/tidings-dev/tidings/notifier/rediscounts/redistest"
)

// TestStateLost loses the counts of a folder, but not its journal. Events that are folded
// again are counted once.
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
		r.fold(pulls(7)...) // not published
		r.db.Close()

		lost := newReplica(t, "aaaa", client)
		lost.cfg, lost.last = r.cfg, r.seq
		down := unreachable{now: !reached}
		cut := server.Client()
		cut.AddHook(&down)
		lost.cfg.Redis = inRedis(cut)
		lost.reopen()
		lost.replay(pulls(67)...)
		down.now = false
		lost.fold(pulls(5)...)
		lost.publish()
		lost.reopen()
		lost.fold(pulls(1)...)
		lost.publish()
		if !reached { // all earlier events are assumed to be in Redis
			r.want["x"][counts.Pull] = 60
		}
		checkSum(t, client, r, lost)
		if n := len(idsIn(t, client)); n != 2 {
			t.Errorf("%d ids, want two", n)
		}
	}
}

// TestSetBackAfterKill kills a process that has written its record but not its counts. An
// older copy of the counts then folds the journal again.
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
	back := r.clone()
	r.reopen()
	r.fold(pulls(10)...)
	r.publish()
	folded := false
	hooked := server.Client()
	hooked.AddHook(&afterFetch{do: func() {
		if !folded {
			folded = true
			r.fold(pulls(30)...) // not published
		}
	}})
	r.c.redis = inRedis(hooked)
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

// TestFolderSetBack: the lost counts that Redis has are kept, and later ones are added.
func TestFolderSetBack(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client()
	r := newReplica(t, "aaaa", client)
	r.fold(pulls(60)...)
	r.publish()
	back := r.clone()
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
	local := &replica{want: map[string]map[counts.Class]int64{"x": {counts.Pull: 100}}}
	checkSource(t, back.c, local.want)

	// After a loss the counts of both ids are sent again.
	server.Flush()
	back.fold(pulls(1)...)
	back.publish()
	local.want["x"][counts.Pull]++
	checkSource(t, &rediscounts.Sum{DB: inRedis(client), Now: at(noon), Check: back.c.Check}, local.want)
}

// TestSetBackWhileRedisIsDown restarts the folder several times before Redis answers.
func TestSetBackWhileRedisIsDown(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client()
	r := newReplica(t, "aaaa", client)
	r.fold(pulls(60)...)
	r.publish()
	back := r.clone()
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
	waitForRedis(t, client)
	back.fold(pulls(5)...)
	back.publish()
	checkSum(t, client, r, back)
}

// TestStateSetBackWithoutJournal sets back the state alone: the journal has the events that
// the state has lost, and Redis has the counts of most of them.
func TestStateSetBackWithoutJournal(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client()
	r := newReplica(t, "aaaa", client)
	r.fold(pulls(60)...)
	r.publish()
	back := r.clone()
	r.fold(pulls(45)...)
	r.publish()
	r.fold(pulls(7)...) // not published
	r.db.Close()

	back.last = r.seq
	back.open()
	back.replay(pulls(52)...)
	back.fold(pulls(30)...)
	back.publish()
	checkSum(t, client, r, back)
	checkSource(t, back.c, map[string]map[counts.Class]int64{"x": {counts.Pull: 60 + 52 + 30}})

	server.Flush() // everything is on this disk
	back.publish()
	checkSum(t, client, r, back)
}

// TestCopyInUse runs a copy of the folder of a running registry.
func TestCopyInUse(t *testing.T) {
	t.Parallel()
	for name, started := range map[string]struct{ unsent, inJournal int }{
		"all sent": {}, "some not sent": {unsent: 8}, "some not folded": {inJournal: 9}, "some not sent, some not folded": {3, 4},
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
			clone := r.clone()
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

// TestCopyAfterFlush starts a copy after Redis was flushed, before the running registry has
// detected that.
func TestCopyAfterFlush(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client()
	now := &clock{noon}
	r := newReplica(t, "aaaa", client)
	r.cfg.Instance, r.cfg.Now = "here", now.now
	r.reopen()
	r.fold(pulls(60)...)
	r.publish()
	clone := r.clone()
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

// TestCopyOfStoppedFolder first starts the copy, which continues under the id of the
// original, and then the original.
func TestCopyOfStoppedFolder(t *testing.T) {
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
	clone := r.clone()
	clone.cfg.Instance = "there"
	clone.open()
	clone.fold(pulls(5)...)
	if _, err := clone.c.Publish(t.Context()); !errors.Is(err, errUndecided) {
		t.Fatalf("Publish = %v, want the copy to watch first", err)
	}
	now.at = now.at.Add(46 * time.Second)
	clone.publish()
	if n := len(idsIn(t, client)); n != 1 {
		t.Fatalf("%d ids, want 1: a folder that was moved keeps its id", n)
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

// TestIDClaimedByCopy: while a registry can't reach Redis, a copy of its folder claims the
// id.
func TestIDClaimedByCopy(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client()
	now := &clock{noon}
	r := newReplica(t, "aaaa", client)
	r.cfg.Instance, r.cfg.Now = "here", now.now
	r.reopen()
	r.fold(pulls(60)...)
	r.publish()
	clone := r.clone()
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

// TestRestartAfterKill: a registry that was killed continues under its id at once, whether
// or not the response to its last call was lost.
func TestRestartAfterKill(t *testing.T) {
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
			bad.AddHook(&lostAnswer{applied: true})
			r.c.redis = inRedis(bad)
			if _, err := r.c.Publish(t.Context()); err == nil {
				t.Fatal("no response was lost")
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
			t.Errorf("%d ids, want 1", n)
		}
	}
}

// TestMoveAfterShutdown: an id that was released is claimed at once.
func TestMoveAfterShutdown(t *testing.T) {
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
		t.Errorf("%d ids, want 1", n)
	}
}

// TestRandomHistories kills, copies and sets back folders, makes Redis unreachable and loses
// its responses: no fact is counted twice, and none that Redis had is missing. In some
// histories Redis is flushed as well; then facts that only a lost folder had may be missing.
// There is no flush after a copy has taken a new id and before it enters its runs, since
// that can count facts twice (claim.go).
func TestRandomHistories(t *testing.T) {
	t.Parallel()
	for seed := range race.Some(uint64(45)) {
		losses := seed%3 == 2
		t.Run(fmt.Sprintf("%d, losses %v", seed, losses), func(t *testing.T) {
			t.Parallel()
			randomHistory(t, rand.New(rand.NewPCG(seed, 77)), losses)
		})
	}
}

func randomHistory(t *testing.T, rnd *rand.Rand, losses bool) {
	server := redistest.Start(t)
	client := server.Client()
	var down unreachable
	cut := server.Client()
	cut.AddHook(&down)
	now := &clock{noon}
	next := 0 // each fact has a tag of its own
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
			f.replay(counts.Fact{Repository: "x", Tag: tag, Class: counts.Pull, Time: noon})
		}
	}
	publish := func(f *folder) {
		if _, err := f.c.Publish(t.Context()); err == nil {
			sent(f)
		} else if !errors.Is(err, errUndecided) && !down.now {
			t.Fatal(err)
		}
	}
	copyOf := func(f *folder, instance string) *folder {
		c := f.clone()
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
			for _, one := range folders { // none is unreachable for that long
				publish(one)
			}
			open(clone)
			folders = append(folders, clone)
		case op < 18:
			down.now = !down.now
		case op < 19 && !down.now: // a call is executed, and its answer lost
			lost := server.Client()
			lost.AddHook(&lostAnswer{applied: true})
			f.c.redis = inRedis(lost)
			f.c.Publish(t.Context())
			f.c.redis = inRedis(cut)
		case op < 20 && losses && rnd.IntN(4) == 0:
			server.Flush()
		default:
			now.at = now.at.Add(11 * time.Second)
			if !down.now {
				for _, one := range folders {
					publish(one)
				}
			}
		}
	}
	down.now = false
	for range 8 {
		for _, f := range folders {
			publish(f)
		}
		now.at = now.at.Add(11 * time.Second)
	}
	totals, tags, _, err := (&rediscounts.Sum{DB: inRedis(client), Now: at(noon)}).Repository(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	for tag, n := range tags {
		if n[counts.Pull] > 1 {
			t.Errorf("%s was counted %d times", tag, n[counts.Pull])
		}
		if !may[tag] {
			t.Errorf("%s is counted, but was never pulled", tag)
		}
	}
	for _, tag := range slices.Sorted(maps.Keys(must)) {
		if tags[tag] == nil && !losses {
			t.Errorf("%s is missing, but was in Redis", tag)
		}
	}
	if totals.Counts[counts.Pull] != int64(len(tags)) {
		t.Errorf("%d pulls in all, want %d", totals.Counts[counts.Pull], len(tags))
	}
}
