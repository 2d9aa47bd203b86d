package pds

import (
	"context"

	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/repo"
)

// A Writer is an Account whose writes have one priority.
type Writer struct {
	*Account
	priority Priority
}

// At returns the Writer with a priority.
func (a *Account) At(p Priority) *Writer { return &Writer{a, p} }

// Apply is Account.Apply with the writer's priority.
func (w *Writer) Apply(ctx context.Context, writes []repo.Write, swap *cid.Cid) (repo.Result, error) {
	return w.Account.Apply(ctx, writes, swap, w.priority)
}

// Fit is Account.Fit with the writer's priority.
func (w *Writer) Fit(writes []repo.Write) int { return w.Account.Fit(writes, w.priority) }
