package remote_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/internal/faultproxy"
	"github.com/tidings-dev/tidings/internal/rounds"
	"github.com/tidings-dev/tidings/notifier"
	"github.com/tidings-dev/tidings/notifier/stats"
)

// roundSteps is how many random events a round has.
const roundSteps = 40

// Calls fail before and after the hold has applied them, the hold is interrupted while it
// writes records, and the process crashes, at random. A hold without keys never gets a call
// twice, and one with keys gets each of them.
func TestRounds(t *testing.T) {
	t.Parallel()
	seed := rounds.Seed(t)
	for name, cfg := range holds {
		for round := range rounds.Number(t, 3) {
			t.Run(fmt.Sprint(name, " ", round), func(t *testing.T) {
				t.Parallel()
				r := newRig(t, cfg)
				r.private = true
				r.open()
				pushed := r.round(rand.New(rand.NewPCG(seed, uint64(round))), cfg.Keys)
				r.hold.End()
				r.hold.Interrupt(-1)
				r.drain()
				r.checkRound(pushed, cfg.Keys)
			})
		}
	}
}

// round is a random sequence of pushes, faults and crashes. It returns the pushes.
func (r *rig) round(random *rand.Rand, keys bool) (pushed []notifier.Push) {
	repositories := []string{"oss/a", "oss/b", "oss/c", "secret/app"}
	for i := range roundSteps {
		name := repositories[random.IntN(len(repositories))]
		switch n := random.IntN(20); {
		case n < 7:
			m := image(name, fmt.Sprint("v", i), fmt.Sprint(i), random.IntN(4))
			r.push(m)
			pushed = append(pushed, m)
		case n < 9 && len(pushed) > 0: // another tag of an image
			m := pushed[random.IntN(len(pushed))]
			m.Tag = fmt.Sprint("v", i)
			r.push(m)
			pushed = append(pushed, m)
		case n < 14:
			r.hold.Start(randomFault(random))
		case n < 16:
			r.hold.End()
		case n < 17 && !keys: // a hold with keys applies a call completely
			r.hold.Interrupt(random.IntN(3))
		case n < 18:
			r.crash()
		case n < 19:
			r.restart()
		default:
			time.Sleep(time.Duration(random.IntN(10)) * time.Millisecond)
		}
	}
	return pushed
}

func randomFault(random *rand.Rand) faultproxy.Fault {
	kinds := []faultproxy.Kind{faultproxy.Cut, faultproxy.Truncate, faultproxy.BadGateway, faultproxy.HTML, faultproxy.RateLimit, faultproxy.RetryAfter}
	f := faultproxy.Fault{Kind: kinds[random.IntN(len(kinds))], Method: lexicon.NSIDNotifyManifest}
	f.Delivered = f.Kind.Delivers() && random.IntN(2) == 0
	if f.Kind == faultproxy.RetryAfter {
		f.For = 30 * time.Second
	}
	if random.IntN(3) == 0 {
		f.Method = ""
	}
	return f
}

// checkRound compares what the hold has with the pushes. Of those that were given up, as the
// hold failed for them too often, it is not known whether they were applied.
func (r *rig) checkRound(pushed []notifier.Push, keys bool) {
	r.t.Helper()
	most := map[string]int{}            // pushes, by repository, and by manifest if it is public
	least := map[string]int{}           // of these those that were certainly applied
	answered := map[string]stats.Push{} // by tag
	public := func(name string) bool { return !strings.HasPrefix(name, "secret/") }
	for _, p := range r.latest() {
		answered[p.Tags[0]] = p
	}
	for _, m := range pushed {
		p := answered[m.Tag]
		if p.State != "done" && p.State != "failed" {
			r.t.Errorf("push %+v", p)
		}
		most[m.Repository]++
		if p.State == "done" && (keys || p.Remote != nil && p.Remote.StatsUpdated) {
			least[m.Repository]++
		}
		if !public(m.Repository) {
			continue
		}
		most[m.Digest]++
		if p.State == "done" && (keys || least[m.Digest] == 0) { // records of another push soon before may be taken for its own
			least[m.Digest]++
		}
	}
	for _, name := range []string{"oss/a", "oss/b", "oss/c", "secret/app"} {
		if got := r.hold.Counts(owner, name).Pushes; got < least[name] || got > most[name] {
			r.t.Errorf("%s: %d pushes are counted, want %d to %d", name, got, least[name], most[name])
		}
	}
	records := map[string]int{}
	for _, l := range r.hold.Layers() {
		records[l.Manifest+" "+l.Digest]++
	}
	for _, m := range pushed {
		for _, layer := range layersOf(r.t, m) {
			key := lexicon.ManifestURI(owner, m.Digest) + " " + layer
			if got := records[key]; got < least[m.Digest] || got > most[m.Digest] {
				r.t.Errorf("%s:%s: %d records of a layer, want %d to %d", m.Repository, m.Tag, got, least[m.Digest], most[m.Digest])
			}
		}
	}
}

// layersOf returns the digests of the layers of a push.
func layersOf(t *testing.T, m notifier.Push) (digests []string) {
	t.Helper()
	var manifest struct{ Layers []struct{ Digest string } }
	if err := json.Unmarshal(m.Payload, &manifest); err != nil {
		t.Fatal(err)
	}
	for _, l := range manifest.Layers {
		digests = append(digests, l.Digest)
	}
	return digests
}
