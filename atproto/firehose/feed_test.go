package firehose

import (
	"math/rand/v2"
	"testing"
)

// The feed returns the next events without a gap, or an error if they were dropped, for
// any cursors in any order.
func TestFeed(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	log := newLog(t)
	f := feed{log: log}
	nextSeq := map[uint64]uint64{} // of each event
	cursors := make([]uint64, 20)
	fellBehind := 0
	for step := range 5_000 {
		if rng.IntN(3) == 0 {
			for range 1 + rng.IntN(9) {
				seq := log.Head() + 1 + rng.Uint64N(3)
				nextSeq[log.Head()] = seq
				log.add(rng.IntN(60<<10), seq)
			}
			if head := log.Head(); head > 300 {
				log.drop(head - 300)
			}
		}
		i := rng.IntN(len(cursors))
		if rng.IntN(100) == 0 {
			cursors[i] = log.Head() // another subscriber
		}
		got, err := f.after(cursors[i])
		if dropped, _ := log.Dropped(); err != nil {
			if dropped <= cursors[i] {
				t.Fatalf("seed %d, step %d: at %d, dropped %d: %v", seed, step, cursors[i], dropped, err)
			}
			cursors[i] = log.Head()
			fellBehind++
			continue
		}
		if len(got) == 0 && cursors[i] != log.Head() {
			t.Fatalf("seed %d, step %d: nothing after %d", seed, step, cursors[i])
		}
		for _, m := range got {
			if want := nextSeq[cursors[i]]; m.seq != want {
				t.Fatalf("seed %d, step %d: got %d after %d, want %d", seed, step, m.seq, cursors[i], want)
			}
			cursors[i] = m.seq
		}
		if f.size > sharedSize+64<<10 {
			t.Fatalf("seed %d, step %d: %d bytes of frames in memory", seed, step, f.size)
		}
	}
	if fellBehind == 0 {
		t.Error("no cursor fell behind")
	}
}

// A commit is read from the log once for all subscribers at the end of the log.
func TestSharedReads(t *testing.T) {
	t.Parallel()
	log := newLog(t)
	f := feed{log: log}
	for range 100 {
		cursor := log.Head()
		log.next()
		before := log.reads
		for range 100 {
			got, err := f.after(cursor)
			if err != nil || len(got) != 1 {
				t.Fatalf("%d frames, %v", len(got), err)
			}
		}
		if n := log.reads - before; n != 1 {
			t.Fatalf("%d reads", n)
		}
	}
}
