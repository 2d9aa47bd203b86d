package quota

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
	r.gate.mu.Lock()
	defer r.gate.mu.Unlock()
	if seq <= r.gate.written {
		r.end()
		return
	}
	r.seq = seq
	r.gate.recorded = append(r.gate.recorded, r)
}

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

// endReservations ends those of events that are written. The caller must hold mu.
func (g *Gate) endReservations() {
	left := g.recorded[:0]
	for _, r := range g.recorded {
		if r.seq <= g.written {
			r.end()
			continue
		}
		left = append(left, r)
	}
	clear(g.recorded[len(left):])
	g.recorded = left
}
