package delivery

import (
	"context"

	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/repo"
)

// A Publisher writes to the repo of the account.
type Publisher interface {
	// Apply applies the writes in one commit, all or none. They are durable when it
	// returns. After a *repo.WriteError none is applied. After any other error it
	// is not known whether they are applied, and the caller reads them back.
	Apply(ctx context.Context, writes []repo.Write, swap *cid.Cid) (repo.Result, error)
	// Get returns a record, or repo.ErrNotFound.
	Get(collection, rkey string) (cid.Cid, []byte, error)
	// List returns up to limit records of a collection in descending order of
	// their keys, with reverse in ascending order, and the cursor of the next page,
	// "" if there is none. A cursor is a record key.
	List(collection, cursor string, limit int, reverse bool) (page []repo.Record, next string, err error)
	// Head is the state of the repo after the last commit.
	Head() repo.Head
}
