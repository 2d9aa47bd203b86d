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

	looking chan struct{} // held during a lookup of what pending deletes free
	unread  []usage.Layer // of the last change, if it could not be read; Gate.changing protects it
}

// pending is a layer with reservations.
type pending struct {
	size         int64 // bytes
	reservations int
}

func newAccount() *account {
	// An owner that Load has not found has nothing.
	return &account{known: true, pending: map[uint64]pending{}, looking: make(chan struct{}, 1)}
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

// check returns the bytes that are used, with reservations and without freed ones, and those
// that a push adds.
func (a *account) check(push []layer, freed int64) (used, added int64) {
	used = plus(max(0, a.used-freed), a.reserved)
	for _, l := range push {
		if a.pending[l.id].reservations == 0 && !a.counted.has(l.id) {
			added = plus(added, l.size)
		}
	}
	return used, added
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
