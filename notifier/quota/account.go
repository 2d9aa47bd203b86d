package quota

import (
	"cmp"
	"hash/maphash"
	"math"
	"slices"

	"github.com/tidings-dev/tidings/notifier/usage"
)

// An account is what an owner with a limit has. The caller of its methods must hold Gate.mu.
type account struct {
	used     int64              // bytes of the layers that count
	counted  set                // IDs of these layers
	known    bool               // used and counted are what the usage has
	pending  map[uint64]pending // layers with reservations, by ID
	reserved int64              // bytes of pending layers that do not count
	freeing  uint64             // sequence number of the last event that may free bytes
}

// pending is a layer with reservations.
type pending struct {
	size         int64 // bytes
	reservations int
}

// A layer is identified by a hash. With a million layers, a new one has the hash of another
// with a probability of 1 in 18 trillion; checks then are wrong by its size. The seed is
// random, so nobody can choose such layers.
type layer struct {
	id   uint64 // not 0
	size int64  // bytes
}

func layerOf(seed maphash.Seed, l usage.Layer) layer {
	return layer{max(1, maphash.Comparable(seed, l)), l.Size}
}

// unique returns each of the layers once.
func unique(seed maphash.Seed, list []usage.Layer) []layer {
	layers := make([]layer, len(list))
	for i, l := range list {
		layers[i] = layerOf(seed, l)
	}
	slices.SortFunc(layers, func(a, b layer) int { return cmp.Compare(a.id, b.id) })
	return slices.Compact(layers)
}

// total is the bytes that are used, with reservations.
func (a *account) total() int64 { return plus(a.used, a.reserved) }

// added is the bytes that a push adds.
func (a *account) added(push []layer) (bytes int64) {
	for _, l := range push {
		if a.pending[l.id].reservations == 0 && !a.counted.has(l.id) {
			bytes = plus(bytes, l.size)
		}
	}
	return bytes
}

// fits reports whether a push adds nothing or stays within the limit.
func (a *account) fits(push []layer, limit int64) bool {
	added := a.added(push)
	return added == 0 || plus(a.total(), added) <= limit
}

// plus adds numbers of bytes that together may exceed an int64, since callers choose sizes.
func plus(a, b int64) int64 {
	if a < 0 || b < 0 || a+b < 0 {
		return math.MaxInt64
	}
	return a + b
}

// reserve adds a reservation of each of the layers.
func (a *account) reserve(layers []layer) {
	if a.pending == nil {
		a.pending = map[uint64]pending{}
	}
	for _, l := range layers {
		p := a.pending[l.id]
		if p.reservations == 0 && !a.counted.has(l.id) {
			a.reserved += l.size
		}
		a.pending[l.id] = pending{l.size, p.reservations + 1}
	}
}

// release removes a reservation of each of the layers.
func (a *account) release(layers []layer) {
	for _, l := range layers {
		if p := a.pending[l.id]; p.reservations > 1 {
			a.pending[l.id] = pending{l.size, p.reservations - 1}
			continue
		}
		delete(a.pending, l.id)
		if !a.counted.has(l.id) {
			a.reserved -= l.size
		}
	}
	if len(a.pending) == 0 {
		a.pending = nil
	}
}

// count notes whether a layer counts.
func (a *account) count(l layer, counts bool) {
	if a.counted.has(l.id) == counts {
		return
	}
	reserved := l.size
	if counts {
		a.counted.add(l.id)
		reserved = -l.size
	} else {
		a.counted.remove(l.id)
	}
	if a.pending[l.id].reservations > 0 {
		a.reserved += reserved
	}
}

// replace replaces what counts.
func (a *account) replace(used int64, counted set) {
	a.used, a.counted, a.known, a.reserved = used, counted, true, 0
	for id, p := range a.pending {
		if !a.counted.has(id) {
			a.reserved += p.size
		}
	}
}
