package notifier

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/internal/race"
	"github.com/tidings-dev/tidings/notifier/counts"
	"github.com/tidings-dev/tidings/notifier/event"
)

// flipped is what a model knows of an image that is reported as public and private.
type flipped struct {
	push           Push
	owner          string
	private        bool // by its last push
	public, hidden int64
	sent           []notification // its pushes, each with a key
}

// Images are reported as public and private in any order, with repeated calls, failing
// writes, and kills in between: in the end an image has records if its last push is public,
// and each push is counted once, under the name of its visibility.
func TestFlipsRandom(t *testing.T) {
	t.Parallel()
	seeds, steps := uint64(6), 40
	if race.Enabled {
		seeds = 2
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 14))
			r := newRig(t, nil)
			var images []*flipped
			for i := range 4 {
				p := image(fmt.Sprint("image ", i), 1+i).as(fmt.Sprint("oss/app", i), "v1")
				images = append(images, &flipped{push: p, owner: []string{alice, bob}[i%2]})
			}
			kills, repeats := 0, 0
			for step := range steps {
				f := images[random.IntN(len(images))]
				switch n := random.IntN(10); {
				case n < 6:
					f.flip(r, random.IntN(2) == 0, fmt.Sprint("key ", step))
				case n < 8 && len(f.sent) > 0:
					repeats++
					again := f.sent[random.IntN(len(f.sent))] // also of an earlier push
					again.Token = fmt.Sprint("repeated ", step)
					r.notifyCanceled(again)
				case n == 8:
					r.account.fail([]fault{lostRequest, lostAnswer}[random.IntN(2)])
				default:
					if kills++; kills%2 == 0 {
						r.reopen(nil)
					} else {
						r.reopenCopy(nil)
					}
				}
			}
			r.drain()
			wanted := map[string]int{}
			for _, f := range images {
				f.check(r)
				if !f.private && f.public > 0 {
					wanted[f.owner] += f.push.Layers
				}
			}
			if got := r.owned(); !maps.Equal(got, wanted) {
				t.Errorf("records of %v, want %v", got, wanted)
			}
			r.consistent()
			t.Logf("%d events, %d repeats, %d restarts", r.events(), repeats, kills)
		})
	}
}

// flip reports a push.
func (f *flipped) flip(r *rig, private bool, key string) {
	n := notificationOf(f.push, f.owner).withKey(key)
	if private {
		n = n.as(lexicon.VisibilityPrivate)
		f.hidden++
	} else {
		f.public++
	}
	f.private, f.sent = private, append(f.sent, n)
	r.notifyCanceled(n)
}

// check compares an image with the model.
func (f *flipped) check(r *rig) {
	r.t.Helper()
	want := 0
	if !f.private && f.public > 0 {
		want = f.push.Layers
	}
	if got := r.recordsOf(f.push.Digest)[f.owner]; got != want {
		r.t.Errorf("%s has %d records, want %d (private: %v)", f.push.Repository, got, want, f.private)
	}
	pushes := func(n int64) map[counts.Class]int64 {
		if n == 0 {
			return nil
		}
		return map[counts.Class]int64{counts.Push: n}
	}
	name := f.owner + "/" + f.push.Repository
	r.wantCounts(name, pushes(f.public))
	r.wantCounts(event.PrivatePrefix+name, pushes(f.hidden))
}
