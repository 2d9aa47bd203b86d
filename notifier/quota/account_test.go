package quota

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// model is what an account should have.
type model struct {
	counted map[layer]bool
	pushes  [][]layer // with a reservation
}

func (m *model) check(push []layer) (used, added int64) {
	pending := map[layer]bool{}
	for l := range m.counted {
		used += l.size
	}
	for _, p := range m.pushes {
		for _, l := range p {
			if !m.counted[l] && !pending[l] {
				used += l.size
			}
			pending[l] = true
		}
	}
	for _, l := range push {
		if !m.counted[l] && !pending[l] {
			added += l.size
		}
	}
	return used, added
}

// After random reservations and changes, an account has the same sums as a model that adds all
// layers each time.
func TestAccount(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 1))
			var layers []layer
			for i := range 20 {
				layers = append(layers, layer{uint64(i + 1), random.Int64N(100)})
			}
			push := func() (some []layer) {
				for _, l := range layers {
					if random.IntN(6) == 0 {
						some = append(some, l)
					}
				}
				return some
			}
			a, want := &account{}, model{counted: map[layer]bool{}}
			for step := range 2000 {
				switch l := layers[random.IntN(len(layers))]; random.IntN(5) {
				case 0:
					p := push()
					a.reserve(p)
					want.pushes = append(want.pushes, p)
				case 1:
					if i := random.IntN(len(want.pushes) + 1); i < len(want.pushes) {
						a.release(want.pushes[i])
						want.pushes = append(want.pushes[:i], want.pushes[i+1:]...)
					}
				case 2:
					a.count(l, true)
					want.counted[l] = true
				case 3:
					a.count(l, false)
					delete(want.counted, l)
				case 4:
					if random.IntN(20) > 0 {
						break
					}
					var counted set
					clear(want.counted)
					for _, l := range push() {
						counted.add(l.id)
						want.counted[l] = true
					}
					a.replace(0, counted)
				}
				a.used = 0
				for l := range want.counted {
					a.used += l.size
				}
				p := push()
				used, added := a.total(), a.added(p)
				if wantUsed, wantAdded := want.check(p); used != wantUsed || added != wantAdded {
					t.Fatalf("step %d: %d bytes used and %d added, want %d and %d", step, used, added, wantUsed, wantAdded)
				}
			}
		})
	}
}

// Sizes that together exceed an int64 are more than each limit, and can be released again.
func TestHugeSizes(t *testing.T) {
	t.Parallel()
	huge := []layer{{1, math.MaxInt64}, {2, math.MaxInt64}}
	a := &account{}
	if added := a.added(huge); added != math.MaxInt64 {
		t.Errorf("%d bytes added", added)
	}
	a.reserve(huge)
	for _, counted := range []int64{0, 10} {
		a.used = counted
		if used := a.total(); used != math.MaxInt64 {
			t.Errorf("%d bytes used with %d that count", used, counted)
		}
	}
	if a.fits([]layer{{3, 1}}, math.MaxInt64-1) {
		t.Error("a push fits that exceeds an int64")
	}
	a.release(huge)
	if used := a.total(); used != 10 {
		t.Errorf("%d bytes used after the release", used)
	}
}
