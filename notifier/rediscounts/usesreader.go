package rediscounts

import (
	"context"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/lastuse"
)

// A UsesReader merges the last uses of a repository on disk with those in Redis. Its memory
// does not grow with them.
type UsesReader struct {
	DB         *DB
	Table      *lastuse.Table
	OnDisk     store.Reader // a snapshot with the rows of Table
	Repository string
	Visit      func(lastuse.Key, lastuse.Use) error

	RedisErr error // Redis could not be read, before Run or by it: only the rows on disk are visited then

	ids  []lastuse.ID // of a batch on disk
	uses []lastuse.Use
}

// Run visits the rows on disk, with the later times of Redis, and then the others in Redis. It
// returns an error of the disk or of Visit.
func (r *UsesReader) Run(ctx context.Context) error {
	err := r.Table.Repository(r.OnDisk, r.Repository, func(k lastuse.Key, u lastuse.Use) error {
		r.ids, r.uses = append(r.ids, lastuse.IDOf(r.Repository, k)), append(r.uses, u)
		if len(r.ids) < RowsInCall {
			return nil
		}
		return r.flush(ctx)
	})
	if err == nil {
		err = r.flush(ctx)
	}
	if err != nil || r.RedisErr != nil {
		return err
	}
	var failed error // of the disk or of Visit
	r.RedisErr = r.DB.ScanUses(ctx, r.Repository, func(k lastuse.Key, u lastuse.Use) error {
		onDisk, err := r.Table.Has(r.OnDisk, lastuse.IDOf(r.Repository, k))
		if err == nil && !onDisk {
			err = r.Visit(k, u)
		}
		failed = err
		return err
	})
	return failed
}

func (r *UsesReader) flush(ctx context.Context) error {
	if r.RedisErr == nil {
		inRedis, err := r.DB.Uses(ctx, r.ids)
		if r.RedisErr = err; err == nil {
			for i, u := range inRedis {
				r.uses[i] = r.uses[i].Max(u)
			}
		}
	}
	for i, id := range r.ids {
		if err := r.Visit(id.Key(), r.uses[i]); err != nil {
			return err
		}
	}
	r.ids, r.uses = r.ids[:0], r.uses[:0]
	return nil
}
