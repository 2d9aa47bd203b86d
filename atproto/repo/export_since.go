package repo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"
)

// ExportSince writes the blocks that the repository has now and did not have
// at rev, as a CAR whose root is the head; perhaps some more. It takes them
// from the event log, and where that doesn't reach back it is Export, which has
// them too. At the head and later there are none.
func (r *Repo) ExportSince(ctx context.Context, w io.Writer, rev string) error {
	v, err := r.acquire()
	if err != nil {
		return err
	}
	if rev >= v.Rev {
		root := v.Commit
		r.release(v)
		return writeCARHeader(w, root)
	}
	cars, reached, err := v.carsSince(ctx, rev)
	if err == nil && reached {
		err = v.exportNew(ctx, w, cars)
	}
	r.release(v)
	switch {
	case err != nil:
		return fmt.Errorf("export since %s: %w", rev, err)
	case !reached:
		return r.Export(ctx, w)
	}
	return nil
}

// carsSince collects the blocks of the events after rev, the newest first.
func (v *view) carsSince(ctx context.Context, rev string) (cars [][]byte, reached bool, err error) {
	err = v.walkBack(ctx, func(c CommitInfo, car []byte) bool {
		if reached = c.Rev == rev; reached || car == nil {
			return false
		}
		cars = append(cars, car)
		return true
	}, func() {})
	return cars, reached, err
}

// exportNew writes, each once, those blocks that are still in use.
func (v *view) exportNew(ctx context.Context, w io.Writer, cars [][]byte) error {
	f, err := v.finder()
	if err != nil {
		return err
	}
	defer f.Close()
	out := bufio.NewWriterSize(w, 64<<10)
	if err := writeCARHeader(out, v.Commit); err != nil {
		return err
	}
	seen := map[cid.Cid]bool{}
	for _, car := range cars {
		err := eachBlock(car, func(c cid.Cid, data []byte) error {
			if seen[c] {
				return nil
			}
			seen[c] = true
			if err := ctx.Err(); err != nil {
				return err
			}
			switch _, err := f.size(c); {
			case errors.Is(err, ErrNotFound):
				return nil
			case err != nil:
				return err
			}
			return writeCARBlock(out, c, data)
		})
		if err != nil {
			return err
		}
	}
	return out.Flush()
}

// eachBlock goes over the blocks of a CAR that we made.
func eachBlock(car []byte, visit func(cid.Cid, []byte) error) error {
	for header := true; len(car) > 0; header = false {
		length, n := binary.Uvarint(car)
		if n <= 0 || length > uint64(len(car)-n) {
			return errDamaged
		}
		section := car[n : n+int(length)]
		car = car[n+int(length):]
		if header {
			continue
		}
		size, c, err := cid.CidFromReader(bytes.NewReader(section))
		if err != nil {
			return fmt.Errorf("%w: %w", errDamaged, err)
		}
		if err := visit(c, section[size:]); err != nil {
			return err
		}
	}
	return nil
}
