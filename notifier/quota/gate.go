package quota

import (
	"context"
	"hash/maphash"
	"sync"

	"github.com/tidings-dev/tidings/notifier/usage"
)

// A Gate checks pushes. It is safe for concurrent use.
type Gate struct {
	tiers   Tiers
	usage   *usage.Table
	metrics *Metrics
	seed    maphash.Seed // of the IDs of layers

	// changing is held while the usage changes, or is read. It is locked before mu.
	changing sync.Mutex

	mu       sync.Mutex
	owners   map[string]*account // of those with a limit
	recorded []*Reservation      // with a sequence number
	freeing  []freeing
	written  uint64 // sequence number of the last event that is written
	loaded   bool   // Loaded was called
}

// New returns a gate. Load reads the usage; until Loaded no push is refused.
func New(tiers Tiers, table *usage.Table, metrics *Metrics) *Gate {
	return &Gate{tiers: tiers, usage: table, metrics: metrics, seed: maphash.MakeSeed(), owners: map[string]*account{}}
}

// Limited reports whether an owner has a limit. The pushes of others need not be reserved.
func (g *Gate) Limited(owner string) bool {
	_, _, limited := g.tiers.Of(owner)
	return limited
}

// Tiers returns the limits.
func (g *Gate) Tiers() *Tiers { return &g.tiers }

// account returns the account of an owner. The caller must hold mu.
func (g *Gate) account(owner string) *account {
	a := g.owners[owner]
	if a == nil {
		a = newAccount()
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
	push := unique(g.seed, layers)
	g.mu.Lock()
	defer g.mu.Unlock()
	a := g.account(owner)
	used, added := a.check(push, 0)
	verified := g.loaded && a.known
	if verified && !fits(used, added, limit) && g.frees(owner) {
		g.mu.Unlock()
		freed, err := g.freed(ctx, owner)
		g.mu.Lock()
		verified = err == nil
		used, added = a.check(push, freed)
	}
	switch {
	case !verified:
		g.metrics.count("unverified")
	case fits(used, added, limit):
		g.metrics.count("fits")
	default:
		g.metrics.count("exceeded")
		return nil, &ExceededError{Owner: owner, Tier: tier, Used: used, Limit: limit, Push: added}
	}
	return g.reserve(owner, push), nil
}

func fits(used, added, limit int64) bool { return added == 0 || plus(used, added) <= limit }

// Add reserves the layers of a push that was recorded without a check.
func (g *Gate) Add(owner string, layers []usage.Layer) *Reservation {
	if !g.Limited(owner) {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.reserve(owner, unique(g.seed, layers))
}

// Written ends what is pending for the events up to a sequence number, after Commit of their
// changes.
func (g *Gate) Written(seq uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.written = max(g.written, seq)
	g.endReservations()
	g.endFreeing()
}
