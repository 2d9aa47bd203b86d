package firehose

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/bluesky-social/indigo/atproto/atdata"
)

func TestPace(t *testing.T) {
	t.Parallel()
	type step struct {
		after  time.Duration
		size   int
		behind time.Duration
		slow   bool
	}
	for name, steps := range map[string][]step{
		"near and crawling":     {{time.Hour, 1, time.Minute, false}, {time.Hour, 1, time.Minute, false}},
		"far and quick":         {{0, 0, time.Hour, false}, {30 * time.Second, 50 << 10, time.Hour, false}, {40 * time.Second, 50 << 10, time.Hour, false}},
		"far and crawling":      {{0, 0, time.Hour, false}, {30 * time.Second, 1, time.Hour, false}, {40 * time.Second, 1, time.Hour, true}},
		"caught up meanwhile":   {{0, 0, time.Hour, false}, {50 * time.Second, 1, time.Minute, false}, {50 * time.Second, 1, time.Hour, false}, {50 * time.Second, 1, time.Hour, false}},
		"quick, then crawling":  {{0, 0, time.Hour, false}, {time.Minute, 1 << 20, time.Hour, false}, {time.Minute, 1, time.Hour, true}},
		"one message in an age": {{0, 0, time.Hour, false}, {time.Hour, 1 << 20, time.Hour, true}},
	} {
		p := pace{limit: Slow{}.withDefaults()}
		now := time.Now()
		for i, s := range steps {
			now = now.Add(s.after)
			if got := p.tooSlow(now, s.size, s.behind); got != s.slow {
				t.Errorf("%s: step %d: too slow is %v", name, i, got)
			}
		}
	}
}

func TestFrames(t *testing.T) {
	t.Parallel()
	for _, message := range []string{"", "short", strings.Repeat("m", 23), strings.Repeat("m", 24), strings.Repeat("m", 255), strings.Repeat("m", 256), strings.Repeat("m", 60_000)} {
		body, ok := bytes.CutPrefix(errorFrame("FutureCursor", message), []byte("\xa1bop\x20"))
		if !ok {
			t.Fatal("no error header")
		}
		got, err := atdata.UnmarshalCBOR(body)
		if err != nil || got["error"] != "FutureCursor" || got["message"] != message {
			t.Errorf("%d bytes of message: %v", len(message), err)
		}
		if again, err := atdata.MarshalCBOR(got); err != nil || !bytes.Equal(again, body) {
			t.Errorf("%d bytes of message: not canonical, %v", len(message), err)
		}
		body, ok = bytes.CutPrefix(infoFrame("OutdatedCursor", message), []byte("\xa2ate#infobop\x01"))
		if !ok {
			t.Fatal("no info header")
		}
		var info comatproto.SyncSubscribeRepos_Info
		if err := info.UnmarshalCBOR(bytes.NewReader(body)); err != nil || info.Name != "OutdatedCursor" || *info.Message != message {
			t.Errorf("%d bytes of message: %v", len(message), err)
		}
	}
}

// Whoever asks the feed, wherever and in whichever order, gets the next events
// without a gap, or learns that they are gone.
func TestFeed(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	log := newLog(t)
	f := feed{log: log}
	follows := map[uint64]uint64{} // which event comes after which
	cursors := make([]uint64, 20)
	fell := 0
	for step := range 5_000 {
		if rng.IntN(3) == 0 {
			for range 1 + rng.IntN(9) {
				seq := log.Head() + 1 + rng.Uint64N(3)
				follows[log.Head()] = seq
				log.add(rng.IntN(60<<10), seq)
			}
			if head := log.Head(); head > 300 {
				log.drop(head - 300)
			}
		}
		i := rng.IntN(len(cursors))
		if rng.IntN(100) == 0 {
			cursors[i] = log.Head() // one leaves, and another comes
		}
		got, err := f.after(cursors[i])
		if lost, _ := log.Lost(); err != nil {
			if lost <= cursors[i] {
				t.Fatalf("seed %d, step %d: at %d, lost %d: %v", seed, step, cursors[i], lost, err)
			}
			cursors[i] = log.Head()
			fell++
			continue
		}
		if len(got) == 0 && cursors[i] != log.Head() {
			t.Fatalf("seed %d, step %d: nothing after %d", seed, step, cursors[i])
		}
		for _, m := range got {
			if want := follows[cursors[i]]; m.seq != want {
				t.Fatalf("seed %d, step %d: %d after %d, want %d", seed, step, m.seq, cursors[i], want)
			}
			cursors[i] = m.seq
		}
		if f.size > sharedSize+64<<10 {
			t.Fatalf("seed %d, step %d: %d bytes are shared", seed, step, f.size)
		}
	}
	if fell == 0 {
		t.Error("nobody fell behind")
	}
}

// A commit is read from the log once for all who wait for it.
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
