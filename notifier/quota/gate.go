package quota

import (
	"context"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/notifier/usage"
)

// lookupTimeout limits how long a push waits for a lookup.
const lookupTimeout = 250 * time.Millisecond

// maxFreeing is how many pending deletes are kept. With more of them no push is refused.
const maxFreeing = 4096

// A Gate checks pushes. It is safe for concurrent use.
type Gate struct {
	tiers   Tiers
	usage   *usage.Table
	metrics *Metrics

	mu       sync.Mutex
	owners   map[string]*account // of those with a limit
	recorded []*Reservation      // with a sequence number
	freeing  []freeing
	written  uint64 // sequence number of the last event that is written
	loaded   bool   // Loaded was called
}

// An account is an owner with a limit.
type account struct {
	used     int64 // bytes that are written
	known    bool  // used is
	pending  map[usage.Layer]int
	reserved int64 // bytes of pending
	changes  int   // of the other members

	looking chan struct{} // held during a lookup
}

// freeing is a pending event that may free bytes.
type freeing struct {
	seq      uint64
	owner    string // "": any
	manifest string // "": all of the owner's
}

// New returns a gate. Load reads the totals; until Loaded no push is refused.
func New(tiers Tiers, table *usage.Table, metrics *Metrics) *Gate {
	return &Gate{tiers: tiers, usage: table, metrics: metrics, owners: map[string]*account{}}
}

// Limited reports whether an owner has a limit. The pushes of others need not be reserved.
func (g *Gate) Limited(owner string) bool {
	_, _, limited := g.tiers.Of(owner)
	return limited
}

// Tiers returns the limits.
func (g *Gate) Tiers() *Tiers { return &g.tiers }

// Load reads the totals of all owners with a limit. It must not run at the same time as
// Refresh.
func (g *Gate) Load() error {
	return g.usage.Owners(func(owner string, total usage.Total) error {
		if g.Limited(owner) {
			g.setUsed(owner, total.Bytes, true)
		}
		return nil
	})
}

// Loaded says that the pending events of the last process have been added.
func (g *Gate) Loaded() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.loaded = true
}

// Refresh reads the total of an owner again, which may have changed. It must not run twice
// at the same time.
func (g *Gate) Refresh(owner string) {
	if !g.Limited(owner) {
		return
	}
	total, err := g.usage.Total(owner)
	g.setUsed(owner, total.Bytes, err == nil)
}

func (g *Gate) setUsed(owner string, used int64, known bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	a := g.account(owner)
	a.used, a.known = used, known
	a.changes++
}

// account returns the account of an owner. The caller must hold mu.
func (g *Gate) account(owner string) *account {
	a := g.owners[owner]
	if a == nil {
		// An owner that Load has not found has nothing.
		a = &account{known: true, pending: map[usage.Layer]int{}, looking: make(chan struct{}, 1)}
		g.owners[owner] = a
	}
	return a
}

// Reserve reserves the layers of a push. It returns an *ExceededError if they do not fit.
// The caller must call Record or Release. For an owner without a limit it returns nil,
// whose methods do nothing.
func (g *Gate) Reserve(ctx context.Context, owner string, layers []usage.Layer) (*Reservation, error) {
	tier, limit, limited := g.tiers.Of(owner)
	if !limited {
		return nil, nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	a := g.account(owner)
	if a.known && a.used+a.reserved+a.added(layers) <= limit {
		g.metrics.count("fits")
		return g.reserve(owner, layers), nil
	}
	g.mu.Unlock()
	sum, err := g.lookup(ctx, owner, layers)
	g.mu.Lock()
	switch {
	case err != nil || !g.loaded:
		g.metrics.count("unverified")
	case sum.push > 0 && sum.used+sum.push > limit:
		g.metrics.count("exceeded")
		return nil, &ExceededError{Owner: owner, Tier: tier, Used: sum.used, Limit: limit, Push: sum.push}
	default:
		g.metrics.count("fits")
	}
	return g.reserve(owner, layers), nil
}

// Add reserves the layers of a push that was recorded without a check.
func (g *Gate) Add(owner string, layers []usage.Layer) *Reservation {
	if !g.Limited(owner) {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.reserve(owner, layers)
}

// added is how many bytes layers add at most. The caller must hold mu.
func (a *account) added(layers []usage.Layer) (bytes int64) {
	for _, l := range layers {
		if a.pending[l] == 0 {
			bytes += l.Size
		}
	}
	return bytes
}

// reserve adds a reservation. The caller must hold mu.
func (g *Gate) reserve(owner string, layers []usage.Layer) *Reservation {
	a := g.account(owner)
	for _, l := range layers {
		if a.pending[l]++; a.pending[l] == 1 {
			a.reserved += l.Size
		}
	}
	a.changes++
	return &Reservation{gate: g, owner: owner, layers: layers}
}

// A Reservation is the layers of a push that are not written yet. A nil one has none.
type Reservation struct {
	gate   *Gate
	owner  string
	layers []usage.Layer
	seq    uint64 // of its event; 0: it is not recorded
	ended  bool
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
	a := r.gate.account(r.owner)
	for _, l := range r.layers {
		if a.pending[l]--; a.pending[l] == 0 {
			delete(a.pending, l)
			a.reserved -= l.Size
		}
	}
	a.changes++
}

// Freeing notes a recorded event that may free the bytes of a manifest, or of all of an
// owner's if it is "". With the owner "" they may be of any owner.
func (g *Gate) Freeing(seq uint64, owner, manifest string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if seq > g.written && len(g.freeing) < maxFreeing {
		g.freeing = append(g.freeing, freeing{seq, owner, manifest})
	}
}

// Written ends what is pending for the events up to a sequence number, after Refresh of
// their owners.
func (g *Gate) Written(seq uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.written = max(g.written, seq)
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
	waiting := g.freeing[:0]
	for _, f := range g.freeing {
		if f.seq > g.written {
			waiting = append(waiting, f)
		}
	}
	g.freeing = waiting
}
