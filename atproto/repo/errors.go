package repo

import (
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/tidings-dev/tidings/internal/store"
)

var (
	ErrRepoExists = errors.New("there is a repository already")
	ErrNotExist   = errors.New("there is no repository")
	ErrClosed     = errors.New("repository is closed")

	// ErrForeign: the repository is of another DID.
	ErrForeign = errors.New("name the right one, or keep the new one in a directory of its own")

	// ErrKey: Config.Key is not the one that signed the head.
	ErrKey = errors.New("is not signed by this key")

	ErrExists    = errors.New("record exists already")
	ErrNotFound  = errors.New("record not found")
	ErrBadKey    = errors.New("bad record path")
	ErrBadAction = errors.New("action is not create, update or delete")

	// ErrTooLarge: a record of more than 1 MiB, more than 200 writes, or a
	// commit whose blocks pass the 2,000,000 bytes that relays accept.
	ErrTooLarge = errors.New("too large")

	// ErrNoSpace: the disk has less free space than Config.Reserve. Nothing
	// was written; the same call works again once there is space.
	ErrNoSpace = store.ErrNoSpace

	// ErrStopped: the disk failed an earlier write, and nothing more is written
	// until a restart. Reads go on.
	ErrStopped = store.ErrStopped

	// ErrClock: the last revision is further ahead of this machine's clock
	// than the network accepts. Nothing was written.
	ErrClock = errors.New("the clock is behind the repository")

	// ErrSuspended: Suspend was told to refuse writes. Nothing was written.
	ErrSuspended = errors.New("the repository takes no writes now")

	// ErrDeactivated: the account is at another place, as Deactivate was told.
	// Nothing was written.
	ErrDeactivated = errors.New("the account has moved away")

	// ErrUnknownOutcome: the caller's context ended, or the disk failed, while
	// the write was on its way. It may have been applied: read back.
	ErrUnknownOutcome = errors.New("the write may or may not have been applied")
)

// WriteError says which write of an Apply is at fault. Nothing of the call was
// applied.
type WriteError struct {
	Index int    // position in the call's writes
	Path  string // collection/rkey
	Err   error  // ErrExists, ErrNotFound, ErrBadKey, ErrBadAction or ErrTooLarge, possibly wrapped
}

func (e *WriteError) Error() string { return fmt.Sprintf("write %d, %s: %v", e.Index, e.Path, e.Err) }
func (e *WriteError) Unwrap() error { return e.Err }

// SwapError: the head is not the commit that the caller expected. Nothing of
// the call was applied.
type SwapError struct{ Head cid.Cid }

func (e *SwapError) Error() string { return fmt.Sprintf("the head is another commit: %s", e.Head) }
