package quota

import (
	"context"

	"github.com/tidings-dev/tidings/notifier/usage"
)

// Load reads the usage of all owners with a limit, unless it is loaded, or is not complete.
func (g *Gate) Load(ctx context.Context, complete func() (bool, error)) error {
	g.changing.Lock()
	defer g.changing.Unlock()
	g.mu.Lock()
	loaded := g.loaded
	g.mu.Unlock()
	if loaded || g.tiers.None() {
		return nil
	}
	if ok, err := complete(); err != nil || !ok {
		return err
	}
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
	for owner, a := range g.accounts {
		if !found[owner] {
			a.replace(0, set{})
		}
	}
	g.loaded = true
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

// Unload says that the usage is about to be changed without Commit. The gate refuses no push
// until Load is called again.
func (g *Gate) Unload() {
	g.changing.Lock()
	defer g.changing.Unlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.loaded = false
}

// Commit calls commit, which changes the usage, and reads the changes, also if it fails, since
// it may have been applied. What can't be read is read with the next changes; until then the
// pushes of these owners are not refused.
func (g *Gate) Commit(changes usage.Changes, commit func() error) error {
	g.changing.Lock()
	defer g.changing.Unlock()
	err := commit()
	all := g.unread
	g.unread = usage.Changes{}
	for owner, layers := range changes {
		if g.Limited(owner) {
			all[owner] = append(all[owner], layers...)
		}
	}
	for owner, layers := range all {
		if g.refresh(owner, layers) != nil {
			g.unread[owner] = layers
		}
	}
	return err
}

// refresh reads the total of an owner, and whether layers count. The caller must hold
// changing.
func (g *Gate) refresh(owner string, layers []usage.Layer) error {
	total, err := g.usage.Total(owner)
	var counts []bool
	if err == nil {
		counts, err = g.usage.Has(owner, layers)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	a := g.account(owner)
	if a.known = err == nil; !a.known {
		return err
	}
	a.used = total.Bytes
	for i, l := range layers {
		a.count(layerOf(g.seed, l), counts[i])
	}
	return nil
}
