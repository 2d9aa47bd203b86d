package repo

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

const (
	blobGrace   = time.Hour // an upload may wait so long for the record that refers to it
	collectOnce = 10_000    // blobs that one round drops at most
)

// collect adds to the batch the deletion of blobs that nothing has referred to
// for an hour. Their files go when it is durable.
func (w *writer) collect(b *pebble.Batch) (dropped []digest, err error) {
	before := max(0, w.cfg.Now().Add(-blobGrace).UnixMicro())
	it, err := w.store.NewIter(&pebble.IterOptions{
		LowerBound: []byte(prefixIdleBlob),
		UpperBound: binary.BigEndian.AppendUint64([]byte(prefixIdleBlob), uint64(before)),
	})
	if err != nil {
		return nil, fmt.Errorf("look for idle blobs: %w", err)
	}
	defer it.Close()
	for ok := it.First(); ok && len(dropped) < collectOnce; ok = it.Next() {
		rest := it.Key()[len(prefixIdleBlob):]
		if len(rest) != 8+digestSize {
			return nil, fmt.Errorf("look for idle blobs: %w", errDamaged)
		}
		d := digest(rest[8:])
		b.Delete(it.Key(), nil)
		b.Delete(blobKey(d), nil)
		dropped = append(dropped, d)
	}
	if err := it.Error(); err != nil {
		return nil, fmt.Errorf("look for idle blobs: %w", err)
	}
	return dropped, nil
}

// Tidy drops what is due now: old events, and blobs that nothing refers to. It
// happens every few minutes by itself.
func (r *Repo) Tidy(ctx context.Context) error {
	done := make(chan error, 1)
	select {
	case r.tidying <- done:
	case <-r.closing:
		return ErrClosed
	case <-r.store.Dead():
		return r.store.Failure()
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-done:
		return err
	case <-r.store.Dead():
		return r.store.Failure()
	case <-ctx.Done():
		return ctx.Err()
	}
}
