package middleware

import (
	"context"
	"net/http"
	"sync/atomic"

	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/hold"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/delivery"
)

// deferredHold replaces a hold that could not be opened because its disk is full or
// read-only, although the rest of the data folder could. Opening the hold is retried
// in the background. Until it succeeds, deferredHold forwards all calls to broken, and
// records and posts stay pending; after that, to the hold.
type deferredHold struct {
	broken *hold.Broken
	opened atomic.Pointer[runtime] // has only a hold
}

func newDeferredHold(broken *hold.Broken) *deferredHold { return &deferredHold{broken: broken} }

// openDeferred opens the hold in the background, with the steps of openAccount and
// openHold.
func (r *runtime) openDeferred() {
	r.closers = append(r.closers, func(ctx context.Context) error {
		if opened := r.deferred.opened.Load(); opened != nil {
			return opened.close(ctx)
		}
		return nil
	})
	r.background(func(ctx context.Context) error {
		openLater(ctx, r.log, "the hold", func(ctx context.Context) error {
			own := &runtime{options: r.options, host: r.host, log: r.log, metrics: r.metrics, notifier: r.notifier}
			for _, open := range []func() error{own.openRepo, own.openNetwork, own.openServer} {
				if err := open(); err != nil {
					if failed := own.close(ctx); failed != nil {
						r.log.Warn("close the hold that could not be opened", "error", failed)
					}
					return err
				}
			}
			r.deferred.opened.Store(own)
			return nil
		})
		return nil
	})
}

func (d *deferredHold) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if opened := d.opened.Load(); opened != nil {
		opened.server.ServeHTTP(w, r)
		return
	}
	d.broken.ServeHTTP(w, r)
}

func (d *deferredHold) publisher() delivery.Publisher {
	if opened := d.opened.Load(); opened != nil {
		return opened.writes
	}
	return delivery.OnEmbedded(d.broken)
}

// Apply calls Apply of the hold.
func (d *deferredHold) Apply(ctx context.Context, writes []repo.Write, swap *cid.Cid) (repo.Result, error) {
	return d.publisher().Apply(ctx, writes, swap)
}

// Get calls Get of the hold.
func (d *deferredHold) Get(ctx context.Context, collection, rkey string) (cid.Cid, []byte, error) {
	return d.publisher().Get(ctx, collection, rkey)
}

// List calls List of the hold.
func (d *deferredHold) List(ctx context.Context, collection, cursor string, limit int, reverse bool) ([]repo.Record, string, error) {
	return d.publisher().List(ctx, collection, cursor, limit, reverse)
}

// UploadBlob calls UploadBlob of the hold.
func (d *deferredHold) UploadBlob(ctx context.Context, mediaType string, content []byte) (repo.Blob, error) {
	return d.publisher().UploadBlob(ctx, mediaType, content)
}

// Rev calls Rev of the hold.
func (d *deferredHold) Rev(ctx context.Context) (string, error) { return d.publisher().Rev(ctx) }
