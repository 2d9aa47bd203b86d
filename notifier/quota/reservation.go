package quota

import (
	"cmp"
	"slices"
)

// A Reservation is the layers of a push that are not written yet. A nil one has none.
type Reservation struct {
	gate   *Gate
	owner  string
	layers []layer
	seq    uint64 // of its event; 0: it is not recorded
	ended  bool
}

// reserve adds a reservation. The caller must hold mu.
func (g *Gate) reserve(owner string, layers []layer) *Reservation {
	g.account(owner).reserve(layers)
	return &Reservation{gate: g, owner: owner, layers: layers}
}

// Record notes the event of the push. The reservation ends when the event is written.
func (r *Reservation) Record(seq uint64) {
	if r == nil {
		return
	}
	g := r.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if seq <= g.written {
		r.end()
		return
	}
	r.seq = seq
	i, _ := slices.BinarySearchFunc(g.recorded, seq, (*Reservation).compare)
	g.recorded = slices.Insert(g.recorded, i, r) // nearly always at the end
}

func (r *Reservation) compare(seq uint64) int { return cmp.Compare(r.seq, seq) }

// Release ends the reservation of a push that is not recorded.
func (r *Reservation) Release() {
	if r == nil {
		return
	}
	r.gate.mu.Lock()
	defer r.gate.mu.Unlock()
	r.end()
}

// end ends the reservation, once. The caller must hold mu.
func (r *Reservation) end() {
	if r.ended {
		return
	}
	r.ended = true
	r.gate.account(r.owner).release(r.layers)
}

// endRecorded ends the reservations of events that are written. The caller must hold mu.
func (g *Gate) endRecorded() {
	n := 0
	for n < len(g.recorded) && g.recorded[n].seq <= g.written {
		g.recorded[n].end()
		g.recorded[n] = nil
		n++
	}
	g.recorded = g.recorded[n:]
}
