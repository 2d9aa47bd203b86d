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

// The feed's shared frames must never be told from the log.
func TestFeed(t *testing.T) {
	t.Parallel()
	log := newLog(t)
	f := feed{log: log}
	cursors := make([]uint64, 20)
	for range 20_000 {
		switch rand.IntN(3) {
		case 0:
			from := log.Head() + 1 + rand.Uint64N(3)
			log.add(rand.IntN(60<<10), seqs(from, from+rand.Uint64N(9))...)
			if log.Head() > 2000 {
				log.drop(log.Head() - 2000)
			}
		case 1:
			if i := rand.IntN(len(cursors)); rand.IntN(50) == 0 {
				cursors[i] = log.Head() // somebody leaves, and another comes
			}
		}
		i := rand.IntN(len(cursors))
		got, err := f.after(cursors[i])
		if lost, _ := log.Lost(); lost > cursors[i] && cursors[i] < f.from {
			if err == nil {
				t.Fatalf("no error at %d with events up to %d lost", cursors[i], lost)
			}
			cursors[i] = lost
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		want, _ := log.Events(cursors[i], 1)
		if len(got) == 0 && len(want) != 0 {
			t.Fatalf("nothing after %d", cursors[i])
		}
		for _, m := range got {
			want, _ := log.Events(cursors[i], 1)
			if len(want) != 0 && m.seq < want[0].Seq {
				// shared, and no longer in the log
				cursors[i] = m.seq
				continue
			}
			if len(want) == 0 || m.seq != want[0].Seq {
				t.Fatalf("%d after %d, want %v", m.seq, cursors[i], want)
			}
			cursors[i] = m.seq
		}
		if f.size > sharedSize+64<<10 {
			t.Fatalf("%d bytes are shared", f.size)
		}
	}
	if log.reads == 0 {
		t.Error("the log was never read")
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
