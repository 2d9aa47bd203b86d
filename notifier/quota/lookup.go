package quota

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/tidings-dev/tidings/notifier/usage"
)

var (
	errManyDeletes = errors.New("many deletes are pending")
	errChanging    = errors.New("the usage changes all the time")
)

// maxLookups is how often a lookup is repeated because other pushes of the owner were
// reserved meanwhile.
const maxLookups = 3

// sums are the result of a lookup, in bytes.
type sums struct {
	used int64 // with reservations, without what pending deletes free
	push int64 // what the push adds
}

// lookup returns what the layers of an owner and a push add up to. A lookup that takes
// longer than lookupTimeout goes on alone, and others of the owner wait for it.
func (g *Gate) lookup(ctx context.Context, owner string, layers []usage.Layer) (sums, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	g.mu.Lock()
	looking := g.account(owner).looking
	g.mu.Unlock()
	select {
	case looking <- struct{}{}:
	case <-ctx.Done():
		return sums{}, ctx.Err()
	}
	type result struct {
		sums
		err error
	}
	done := make(chan result, 1)
	go func() {
		defer func() { <-looking }()
		s, err := g.lookupStable(ctx, owner, layers)
		done <- result{s, err}
	}()
	select {
	case r := <-done:
		return r.sums, r.err
	case <-ctx.Done():
		return sums{}, ctx.Err()
	}
}

// lookupStable repeats a lookup during which other pushes were reserved or events written.
func (g *Gate) lookupStable(ctx context.Context, owner string, layers []usage.Layer) (sums, error) {
	for range maxLookups {
		g.mu.Lock()
		a := g.account(owner)
		changes, pending, frees := a.changes, slices.Collect(maps.Keys(a.pending)), slices.Clone(g.freeing)
		g.mu.Unlock()
		s, err := g.lookupOnce(ctx, owner, layers, pending, frees)
		if err != nil {
			return s, err
		}
		g.mu.Lock()
		stable := a.changes == changes
		g.mu.Unlock()
		if stable {
			return s, nil
		}
	}
	return sums{}, errChanging
}

// lookupOnce reads what is freed, then the total, then the layers: see doc.go.
func (g *Gate) lookupOnce(ctx context.Context, owner string, layers, pending []usage.Layer, frees []freeing) (s sums, err error) {
	freed, all, err := g.freed(owner, frees)
	if err != nil {
		return s, err
	}
	total, err := g.usage.Total(owner)
	if err != nil {
		return s, err
	}
	if s.used = max(0, total.Bytes-freed); all {
		s.used = 0
	}
	checked := unique(pending, layers)
	has, err := g.usage.Has(ctx, owner, checked)
	if err != nil {
		return s, err
	}
	for i, l := range checked {
		switch {
		case has[i]:
		case i < len(pending):
			s.used += l.Size
		default:
			s.push += l.Size
		}
	}
	return s, nil
}

// unique returns the pending layers, which are unique, and after them the others.
func unique(pending, layers []usage.Layer) []usage.Layer {
	all, seen := slices.Clone(pending), make(map[usage.Layer]bool, len(pending)+len(layers))
	for _, l := range pending {
		seen[l] = true
	}
	for _, l := range layers {
		if !seen[l] {
			all = append(all, l)
		}
		seen[l] = true
	}
	return all
}

// freed is how many bytes of an owner pending events free at most, or all.
func (g *Gate) freed(owner string, frees []freeing) (bytes int64, all bool, err error) {
	if len(frees) >= maxFreeing {
		return 0, false, errManyDeletes
	}
	seen := map[string]bool{}
	for _, f := range frees {
		if f.owner != "" && f.owner != owner || seen[f.manifest] {
			continue
		}
		if seen[f.manifest] = true; f.manifest == "" {
			return 0, true, nil
		}
		layers, err := g.usage.Manifest(owner, f.manifest)
		if err != nil {
			return 0, false, err
		}
		for _, l := range layers {
			bytes += l.Size
		}
	}
	return bytes, false, nil
}
