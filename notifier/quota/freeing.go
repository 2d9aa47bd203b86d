package quota

import (
	"context"
	"errors"
	"math"
	"time"
)

// lookupTimeout limits how long a push waits for a lookup of what pending deletes free.
const lookupTimeout = 250 * time.Millisecond

// maxFreeing is how many pending deletes are kept. With more of them no push is refused.
const maxFreeing = 4096

var errManyDeletes = errors.New("many deletes are pending")

// freeing is a pending event that may free bytes.
type freeing struct {
	seq      uint64
	owner    string // "": any
	manifest string // "": all of the owner's
}

func (f *freeing) of(owner string) bool { return f.owner == "" || f.owner == owner }

// Freeing notes a recorded event that may free the bytes of a manifest, or of all of an
// owner's if it is "". With the owner "" they may be of any owner.
func (g *Gate) Freeing(seq uint64, owner, manifest string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if seq > g.written && len(g.freeing) < maxFreeing {
		g.freeing = append(g.freeing, freeing{seq, owner, manifest})
	}
}

// endFreeing removes the events that are written. The caller must hold mu.
func (g *Gate) endFreeing() {
	left := g.freeing[:0]
	for _, f := range g.freeing {
		if f.seq > g.written {
			left = append(left, f)
		}
	}
	g.freeing = left
}

// frees reports whether pending events may free bytes of an owner. The caller must hold mu.
func (g *Gate) frees(owner string) bool {
	for i := range g.freeing {
		if g.freeing[i].of(owner) {
			return true
		}
	}
	return len(g.freeing) >= maxFreeing
}

// freed returns how many bytes of an owner pending events free at most. A lookup that takes
// longer than lookupTimeout goes on alone, and others of the owner wait for it.
func (g *Gate) freed(ctx context.Context, owner string) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	g.mu.Lock()
	looking := g.account(owner).looking
	g.mu.Unlock()
	select {
	case looking <- struct{}{}:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	type result struct {
		bytes int64
		err   error
	}
	done := make(chan result, 1)
	go func() {
		defer func() { <-looking }()
		bytes, err := g.readFreed(ctx, owner)
		done <- result{bytes, err}
	}()
	select {
	case r := <-done:
		return r.bytes, r.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// readFreed reads the manifests that pending events delete. Since it holds changing, none of
// them is missing because its delete is written, but is still in the account.
func (g *Gate) readFreed(ctx context.Context, owner string) (bytes int64, err error) {
	g.changing.Lock()
	defer g.changing.Unlock()
	manifests, err := g.freedManifests(owner)
	if err != nil {
		return 0, err
	}
	for manifest := range manifests {
		if manifest == "" {
			return math.MaxInt64, nil
		}
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		layers, err := g.usage.Manifest(owner, manifest)
		if err != nil {
			return 0, err
		}
		for _, l := range layers {
			bytes = plus(bytes, l.Size)
		}
	}
	return bytes, nil
}

// freedManifests returns the manifests of an owner that pending events delete, "" for all.
func (g *Gate) freedManifests(owner string) (map[string]bool, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.freeing) >= maxFreeing {
		return nil, errManyDeletes
	}
	manifests := map[string]bool{}
	for _, f := range g.freeing {
		if f.of(owner) {
			manifests[f.manifest] = true
		}
	}
	return manifests, nil
}
