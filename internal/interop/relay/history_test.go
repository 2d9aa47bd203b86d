package relay

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/tidings-dev/tidings/atproto/repo"
)

// history generates a fixed sequence of random commits.
type history struct {
	rng  *rand.Rand
	have []string // keys of the existing records
}

func newHistory() history { return history{rng: rand.New(rand.NewPCG(1, 2))} }

// next returns the writes of the next commit.
func (h *history) next() (writes []repo.Write) {
	used := map[string]bool{}
	for range 1 + h.rng.IntN(12) {
		if len(h.have) == 0 || h.rng.IntN(3) > 0 {
			key := fmt.Sprintf("k%x", h.rng.Uint64())
			h.have = append(h.have, key)
			used[key] = true
			writes = append(writes, note(repo.Create, key, h.rng.IntN(1000)))
			continue
		}
		i := h.rng.IntN(len(h.have))
		key := h.have[i]
		if used[key] {
			continue
		}
		used[key] = true
		if h.rng.IntN(2) == 0 {
			writes = append(writes, note(repo.Update, key, 1000+h.rng.IntN(1_000_000)))
			continue
		}
		writes = append(writes, note(repo.Delete, key, 0))
		h.have = slices.Delete(h.have, i, i+1)
	}
	return writes
}
