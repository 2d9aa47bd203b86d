package usage

import (
	"bytes"
	"context"
	"fmt"

	"github.com/tidings-dev/tidings/notifier/ledger"
	"github.com/tidings-dev/tidings/notifier/state"
)

// A Difference is a row of a table that a recount does not confirm.
type Difference struct {
	Owner  string `json:"owner"`
	Digest string `json:"digest,omitempty"` // of the manifest or layer; "": it is the owner's total
	Detail string `json:"detail"`
}

func (d Difference) String() string {
	if d.Digest == "" {
		return d.Owner + ": " + d.Detail
	}
	return d.Owner + " " + d.Digest + ": " + d.Detail
}

// Correct makes a table equal to a recount, and calls visit with each row that differs. With
// dryRun it changes nothing. It reads both tables in pages. If it is interrupted, the rows up
// to some page are correct.
func (t *Table) Correct(ctx context.Context, recount *Table, dryRun bool, visit func(Difference) error) error {
	have, want := t.read(), recount.read()
	var b state.Batch
	for changed := 0; ; {
		h, w, err := nextPair(have, want)
		if err != nil {
			return err
		}
		if h == nil && w == nil {
			break
		}
		if h != nil && w != nil && bytes.Equal(h.value, w.value) {
			continue
		}
		if err := visit(differenceOf(h, w)); err != nil {
			return err
		}
		if dryRun {
			continue
		}
		if w == nil {
			b.Delete(append([]byte(t.prefix), h.key...))
		} else {
			b.Set(append([]byte(t.prefix), w.key...), w.value)
		}
		if changed++; changed%pageSize != 0 {
			continue
		}
		if err := t.db.Commit(&b, state.NoSync); err != nil {
			return err
		}
		if b = (state.Batch{}); ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if dryRun {
		return nil
	}
	return t.db.Commit(&b, state.Sync)
}

// pageSize is how many rows are read or written at a time.
const pageSize = 1000

// A row is one row of a table; its key is without the prefix of the table.
type row struct{ key, value []byte }

// rows reads a table in the order of its keys, in pages.
type rows struct {
	table *Table
	rest  state.Range
	page  []row
	ended bool
}

func (t *Table) read() *rows { return &rows{table: t, rest: state.Prefix(t.prefix)} }

// peek returns the next row, nil after the last.
func (r *rows) peek() (*row, error) {
	if len(r.page) == 0 && !r.ended {
		err := r.table.db.Scan(r.rest, func(key, value []byte) error {
			if len(r.page) == pageSize {
				return state.ErrStop
			}
			r.page = append(r.page, row{bytes.Clone(key[len(r.table.prefix):]), bytes.Clone(value)})
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("read usage: %w", err)
		}
		if r.ended = len(r.page) < pageSize; !r.ended {
			r.rest = r.rest.After(append([]byte(r.table.prefix), r.page[len(r.page)-1].key...))
		}
	}
	if len(r.page) == 0 {
		return nil, nil
	}
	return &r.page[0], nil
}

// nextPair returns the rows of both tables with the next key, nil for a table without it.
func nextPair(a, b *rows) (x, y *row, err error) {
	if x, err = a.peek(); err != nil {
		return nil, nil, err
	}
	if y, err = b.peek(); err != nil {
		return nil, nil, err
	}
	if x != nil && y != nil {
		switch bytes.Compare(x.key, y.key) {
		case -1:
			y = nil
		case 1:
			x = nil
		}
	}
	if x != nil {
		a.page = a.page[1:]
	}
	if y != nil {
		b.page = b.page[1:]
	}
	return x, y, nil
}

// differenceOf describes a row that one of the tables does not have, or has with another
// value.
func differenceOf(have, want *row) Difference {
	any := have
	if any == nil {
		any = want
	}
	part, rest := string(any.key[:min(2, len(any.key))]), any.key[min(2, len(any.key)):]
	owner, key, _ := bytes.Cut(rest, []byte{0})
	d := Difference{Owner: string(owner)}
	if part == totals {
		d.Detail = fmt.Sprintf("the total is %s, but should be %s", describeTotal(have), describeTotal(want))
		return d
	}
	d.Digest, _, _ = ledger.CutDigest(key)
	kind := "manifest"
	if part == layers {
		kind = "layer"
	}
	switch {
	case want == nil:
		d.Detail = "the " + kind + " counts, but should not"
	case have == nil:
		d.Detail = "the " + kind + " does not count, but should"
	case part == layers:
		d.Detail = fmt.Sprintf("the layer has %d references, but should have %d", describeCount(have), describeCount(want))
	default:
		d.Detail = "the manifest counts with other layers than its records have"
	}
	return d
}

func describeTotal(r *row) string {
	if r == nil {
		return "0 layers"
	}
	t, err := decodeTotal(r.value, nil)
	if err != nil {
		return err.Error()
	}
	if t.Blobs == 1 {
		return fmt.Sprintf("1 layer of %d bytes", t.Bytes)
	}
	return fmt.Sprintf("%d layers of %d bytes", t.Blobs, t.Bytes)
}

func describeCount(r *row) int64 {
	count, _ := decodeCount(r.value, nil)
	return count
}
