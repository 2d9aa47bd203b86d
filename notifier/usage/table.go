package usage

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/tidings-dev/tidings/notifier/ledger"
	"github.com/tidings-dev/tidings/notifier/state"
)

// A Layer is a layer as a manifest declares it.
type Layer struct {
	Digest string
	Size   int64 // bytes
}

// A Total is what an owner's layers add up to.
type Total struct {
	Blobs int64 `json:"uniqueBlobs"`
	Bytes int64 `json:"totalSize"`
}

// Changes are the layers, by owner, that a batch makes count, or not count any more.
type Changes map[string][]Layer

// A Table has the usage of all owners.
type Table struct {
	db     state.Store
	prefix string
}

// New returns the table in db.
func New(db state.Store) *Table { return &Table{db, state.Usage} }

// NewRecount returns a second table in db, to compare the first one with.
func NewRecount(db state.Store) *Table { return &Table{db, state.Recount} }

// Add counts a manifest of an owner in the batch, unless it counts already. It returns the
// layers that start to count.
func (t *Table) Add(b *state.Batch, owner, manifest string, layers []Layer) ([]Layer, error) {
	key := t.manifestKey(owner, manifest)
	_, err := b.Get(t.db, key)
	if err == nil {
		return nil, nil
	}
	if !errors.Is(err, state.ErrNotFound) {
		return nil, readError(owner, err)
	}
	b.Set(key, encodeLayers(layers))
	return t.change(b, owner, layers, 1)
}

// Remove stops counting a manifest of an owner in the batch, if it counts. It returns the
// layers that stop counting.
func (t *Table) Remove(b *state.Batch, owner, manifest string) ([]Layer, error) {
	key := t.manifestKey(owner, manifest)
	layers, err := decodeLayers(b.Get(t.db, key))
	if err != nil {
		return nil, readError(owner, err)
	}
	if layers == nil {
		return nil, nil
	}
	b.Delete(key)
	return t.change(b, owner, layers, -1)
}

// Replace counts a manifest with these layers in the batch, whether it counts or not. It
// returns the layers that start or stop counting; those that do both are in it as well.
func (t *Table) Replace(b *state.Batch, owner, manifest string, layers []Layer) ([]Layer, error) {
	removed, err := t.Remove(b, owner, manifest)
	if err != nil {
		return nil, err
	}
	added, err := t.Add(b, owner, manifest, layers)
	return append(removed, added...), err
}

// change adds one reference to each layer, or removes one. It returns the layers that start or
// stop counting.
func (t *Table) change(b *state.Batch, owner string, layers []Layer, by int64) (changed []Layer, err error) {
	total, err := decodeTotal(b.Get(t.db, t.totalKey(owner)))
	if err != nil {
		return nil, readError(owner, err)
	}
	for _, l := range layers {
		key := t.layerKey(owner, l)
		refs, err := decodeCount(b.Get(t.db, key))
		if err != nil {
			return nil, readError(owner, err)
		}
		switch {
		case refs == 0 && by > 0:
			total.Blobs, total.Bytes = total.Blobs+1, total.Bytes+l.Size
			changed = append(changed, l)
		case refs == 1 && by < 0:
			total.Blobs, total.Bytes = total.Blobs-1, total.Bytes-l.Size
			changed = append(changed, l)
		}
		setCount(b, key, max(0, refs+by))
	}
	if total.Blobs == 0 {
		b.Delete(t.totalKey(owner))
		return changed, nil
	}
	b.Set(t.totalKey(owner), total.encode())
	return changed, nil
}

// Total returns the usage of an owner, zero if there is none.
func (t *Table) Total(owner string) (Total, error) {
	total, err := decodeTotal(t.db.Get(t.totalKey(owner)))
	if err != nil {
		return total, readError(owner, err)
	}
	return total.shown(), nil
}

// Has reports for each of the layers whether it counts for an owner.
func (t *Table) Has(owner string, layers []Layer) ([]bool, error) {
	has := make([]bool, len(layers))
	for i, l := range layers {
		var err error
		if has[i], err = state.Has(t.db, t.layerKey(owner, l)); err != nil {
			return nil, readError(owner, err)
		}
	}
	return has, nil
}

// Layers calls visit with each layer that counts for an owner, until it returns an error.
func (t *Table) Layers(owner string, visit func(Layer) error) error {
	prefix := t.ownerPrefix(layers, owner)
	return t.db.Scan(state.Prefix(string(prefix)), func(key, _ []byte) error {
		l, rest, err := cutLayer(key[len(prefix):])
		if err == nil && len(rest) > 0 {
			err = errDamaged
		}
		if err != nil {
			return readError(owner, err)
		}
		return visit(l)
	})
}

// Manifest returns the layers with which a manifest of an owner counts, nil if it does not.
func (t *Table) Manifest(owner, manifest string) ([]Layer, error) {
	layers, err := decodeLayers(t.db.Get(t.manifestKey(owner, manifest)))
	if err != nil {
		return nil, readError(owner, err)
	}
	return layers, nil
}

// Owners calls visit with the usage of each owner, in the order of their DIDs, until it
// returns an error.
func (t *Table) Owners(visit func(owner string, total Total) error) error {
	prefix := t.prefix + totals
	return t.db.Scan(state.Prefix(prefix), func(key, val []byte) error {
		owner := string(key[len(prefix):])
		total, err := decodeTotal(val, nil)
		if err != nil {
			return readError(owner, err)
		}
		return visit(owner, total.shown())
	})
}

// A Manifest is a manifest of an owner that counts.
type Manifest struct {
	Digest string
	Layers []Layer
}

// Manifests returns up to limit manifests of an owner after one of them, the first if after
// is "". There are no more if it returns fewer.
func (t *Table) Manifests(owner, after string, limit int) (page []Manifest, err error) {
	prefix := t.ownerPrefix(manifests, owner)
	r := state.Prefix(string(prefix))
	if after != "" {
		r = r.After(t.manifestKey(owner, after))
	}
	err = t.db.Scan(r, func(key, val []byte) error {
		if len(page) == limit {
			return state.ErrStop
		}
		digest, _, err := ledger.CutDigest(key[len(prefix):])
		if err != nil {
			return readError(owner, err)
		}
		layers, err := decodeLayers(val, nil)
		if err != nil {
			return readError(owner, err)
		}
		page = append(page, Manifest{digest, layers})
		return nil
	})
	return page, err
}

// Listed returns how many layers the manifests of an owner have, each counted for each
// manifest that lists it: the number of their records.
func (t *Table) Listed(ctx context.Context, owner string) (n int, err error) {
	for after := ""; ctx.Err() == nil; {
		page, err := t.Manifests(owner, after, listedPage)
		if err != nil {
			return n, err
		}
		for _, m := range page {
			n += len(m.Layers)
			after = m.Digest
		}
		if len(page) < listedPage {
			return n, nil
		}
	}
	return n, ctx.Err()
}

// listedPage is how many manifests Listed reads at a time.
const listedPage = 100

// Clear deletes the whole table in the batch.
func (t *Table) Clear(b *state.Batch) { b.DeleteRange(state.Prefix(t.prefix)) }

func readError(owner string, err error) error {
	return fmt.Errorf("read the usage of %s: %w", owner, err)
}

// shown is the total with a sum that did not overflow. The stored one is right again when
// layers are removed.
func (t Total) shown() Total {
	if t.Bytes < 0 {
		t.Bytes = math.MaxInt64
	}
	return t
}

func (t Total) encode() []byte {
	return binary.AppendVarint(binary.AppendVarint(nil, t.Blobs), t.Bytes)
}
