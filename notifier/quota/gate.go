package quota

import (
	"context"
	"hash/maphash"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/notifier/usage"
)

// maxWait limits how long a push that does not fit waits for pending deletes.
const maxWait = 5 * time.Second

// A Gate checks pushes. It is safe for concurrent use.
type Gate struct {
	tiers   Tiers
	usage   *usage.Table
	metrics *Metrics
	seed    maphash.Seed  // of the IDs of layers
	maxWait time.Duration // as the constant, except in tests

	changing sync.Mutex    // held while the usage is changed or loaded; locked before mu
	unread   usage.Changes // that could not be read; changing protects it

	mu       sync.Mutex
	accounts map[string]*account // of owners with a limit
	recorded []*Reservation      // with a sequence number, in their order
	freeing  uint64              // sequence number of the last event that may free bytes of any owner
	written  uint64              // sequence number of the last event that is written
	progress chan struct{}       // closed when written increases
	loaded   bool                // the accounts have what their owners have in the usage
	resumed  bool                // Resumed was called
}

// New returns a gate. It refuses no push until Load and Resumed were called.
func New(tiers Tiers, table *usage.Table, metrics *Metrics) *Gate {
	return &Gate{
		tiers: tiers, usage: table, metrics: metrics, seed: maphash.MakeSeed(), maxWait: maxWait,
		unread: usage.Changes{}, accounts: map[string]*account{}, progress: make(chan struct{}),
	}
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
	a := g.accounts[owner]
	if a == nil {
		// An owner whose usage is not read has nothing.
		a = &account{known: true}
		g.accounts[owner] = a
	}
	return a
}

// Reserve reserves the layers of a push. It returns an *ExceededError if they do not fit; if
// deletes are pending that may make them fit, it waits for these before. The caller must call
// Record or Release. For an owner without a limit it returns nil, whose methods do nothing.
func (g *Gate) Reserve(ctx context.Context, owner string, layers []usage.Layer) (*Reservation, error) {
	tier, limit, limited := g.tiers.Of(owner)
	if !limited {
		return nil, nil
	}
	push := unique(g.seed, layers)
	g.mu.Lock()
	defer g.mu.Unlock()
	a := g.account(owner)
	deletes := max(g.freeing, a.freeing)
	if g.written < deletes && g.knows(a) && !a.fits(push, limit) {
		g.waitWritten(ctx, deletes)
	}
	switch {
	case !g.knows(a):
		g.metrics.count("unverified")
	case a.fits(push, limit):
		g.metrics.count("fits")
	default:
		g.metrics.count("exceeded")
		return nil, &ExceededError{
			Owner: owner, Tier: tier, Used: a.total(), Limit: limit, Push: a.added(push), Pending: g.written < deletes,
		}
	}
	return g.reserve(owner, push), nil
}

// knows reports whether an account has what its owner has. The caller must hold mu.
func (g *Gate) knows(a *account) bool { return g.loaded && g.resumed && a.known }

// waitWritten waits until the events up to a sequence number are written, at most for
// maxWait. The caller must hold mu, which is not held meanwhile.
func (g *Gate) waitWritten(ctx context.Context, seq uint64) {
	ctx, cancel := context.WithTimeout(ctx, g.maxWait)
	defer cancel()
	for g.written < seq && ctx.Err() == nil {
		progress := g.progress
		g.mu.Unlock()
		select {
		case <-progress:
		case <-ctx.Done():
		}
		g.mu.Lock()
	}
}

// Add reserves the layers of a push that was recorded without a check.
func (g *Gate) Add(owner string, layers []usage.Layer) *Reservation {
	if !g.Limited(owner) {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.reserve(owner, unique(g.seed, layers))
}

// Freeing notes a recorded event that may free bytes of an owner, of any if it is "".
func (g *Gate) Freeing(seq uint64, owner string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if owner == "" {
		g.freeing = max(g.freeing, seq)
	} else if g.Limited(owner) {
		a := g.account(owner)
		a.freeing = max(a.freeing, seq)
	}
}

// Resumed says that the pending events of the last process are added.
func (g *Gate) Resumed() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.resumed = true
}

// Written ends the reservations of the events up to a sequence number. Their changes must be
// committed.
func (g *Gate) Written(seq uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if seq <= g.written {
		return
	}
	g.written = seq
	g.endRecorded()
	close(g.progress)
	g.progress = make(chan struct{})
}
