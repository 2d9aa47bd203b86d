package quota

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// After random changes a set has what a map has. Few different numbers, and numbers that
// belong to few slots, make collisions.
func TestSet(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 1))
			ids := make([]uint64, 1+random.IntN(2000))
			for i := range ids {
				ids[i] = 1 + random.Uint64N(1<<63)
				if seed%2 == 0 {
					ids[i] = ids[i]<<8 | random.Uint64N(4) + 252
				}
			}
			var s set
			want := map[uint64]bool{}
			for round := range 6 {
				adds := 8
				if round%2 == 1 {
					adds = 1 // mostly removes
				}
				for range 2 * len(ids) {
					id := ids[random.IntN(len(ids))]
					if random.IntN(9) < adds {
						s.add(id)
						want[id] = true
					} else {
						s.remove(id)
						delete(want, id)
					}
				}
				for _, id := range ids {
					if s.has(id) != want[id] {
						t.Fatalf("round %d: has %x: %v", round, id, s.has(id))
					}
				}
				if s.n != len(want) {
					t.Fatalf("round %d: %d numbers, want %d", round, s.n, len(want))
				}
				if slots := len(s.slots); 4*s.n > 3*slots || slots > minSlots && 4*s.n < slots {
					t.Fatalf("round %d: %d numbers in %d slots", round, s.n, slots)
				}
			}
			if s.has(ids[0] ^ 1<<40) {
				t.Error("it has another number")
			}
		})
	}
}
