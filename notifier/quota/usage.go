package quota

import (
	"context"

	"github.com/tidings-dev/tidings/notifier/usage"
)

// Load reads the usage of all owners with a limit.
func (g *Gate) Load(ctx context.Context) error {
	g.changing.Lock()
	defer g.changing.Unlock()
	found := map[string]bool{}
	err := g.usage.Owners(func(owner string, total usage.Total) error {
		if !g.Limited(owner) {
			return nil
		}
		found[owner] = true
		return g.load(ctx, owner, total)
	})
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for owner, a := range g.owners {
		if !found[owner] {
			a.replace(0, set{})
		}
	}
	return nil
}

// load reads the layers of an owner.
func (g *Gate) load(ctx context.Context, owner string, total usage.Total) error {
	var counted set
	err := g.usage.Layers(owner, func(l usage.Layer) error {
		counted.add(layerOf(g.seed, l).id)
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.account(owner).replace(total.Bytes, counted)
	return nil
}

// Loaded says that the usage is read, and the pending events of the last process are added.
func (g *Gate) Loaded() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.loaded = true
}

// Commit calls commit, which changes the usage, and reads the changes, also if it fails, since
// it may have been applied.
func (g *Gate) Commit(changes usage.Changes, commit func() error) error {
	g.changing.Lock()
	defer g.changing.Unlock()
	err := commit()
	for owner, layers := range changes {
		if g.Limited(owner) {
			g.refresh(owner, layers)
		}
	}
	return err
}

// refresh reads the total of an owner, and whether layers count. The caller must hold
// changing.
func (g *Gate) refresh(owner string, layers []usage.Layer) {
	g.mu.Lock()
	a := g.account(owner)
	g.mu.Unlock()
	layers = append(a.unread, layers...)
	total, err := g.usage.Total(owner)
	var counts []bool
	if err == nil {
		counts, err = g.usage.Has(owner, layers)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if a.known, a.unread = err == nil, nil; !a.known {
		a.unread = layers
		return
	}
	a.used = total.Bytes
	for i, l := range layers {
		a.count(layerOf(g.seed, l), counts[i])
	}
}
