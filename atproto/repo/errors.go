package repo

import (
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"

	"github.com/tidings-dev/tidings/atproto/mst"
	"github.com/tidings-dev/tidings/atproto/repo/archive"
	"github.com/tidings-dev/tidings/atproto/repo/layout"
	"github.com/tidings-dev/tidings/internal/store"
)

var (
	ErrRepoExists = errors.New("repo already exists")
	ErrNotExist   = layout.ErrNotExist
	ErrClosed     = errors.New("repo is closed")

	// ErrForeign: the repo has another DID than Config.DID.
	ErrForeign = errors.New("repo belongs to another account")

	// ErrKey: Config.Key is not the one that signed the head.
	ErrKey = errors.New("repo is signed by another key")

	ErrExists        = errors.New("record already exists")
	ErrNotFound      = errors.New("record not found")
	ErrInvalidPath   = mst.ErrPath
	ErrInvalidAction = errors.New("invalid write action")

	// ErrInvalidRecord: the bytes are not canonical DAG-CBOR of the data model.
	ErrInvalidRecord = errors.New("invalid record")

	// ErrInvalidCAR: the input of an import is not one complete repo of this
	// account. The error has the reason.
	ErrInvalidCAR = archive.ErrInvalid

	// ErrTooLarge: more than MaxRecord bytes in a record, MaxWrites writes, or
	// MaxCommit bytes in a commit, or an upload or import above its limit.
	ErrTooLarge = archive.ErrTooLarge

	// ErrNoSpace: the disk has less free space than Config.Reserve. Nothing was
	// written; the same call works again once there is space.
	ErrNoSpace = store.ErrNoSpace

	// ErrStopped: an earlier write failed on the disk, and nothing more is written
	// until a restart. Reads continue.
	ErrStopped = store.ErrStopped

	// ErrClock: the rev of the head is further ahead of the system clock than
	// the network accepts. Nothing was written.
	ErrClock = errors.New("clock is behind the repo")

	// ErrSuspended: Suspend disabled writes. Nothing was written.
	ErrSuspended = errors.New("repo is suspended")

	// ErrDeactivated: Deactivate recorded that the account is on another host.
	// Nothing was written.
	ErrDeactivated = errors.New("account has moved away")

	// ErrUnknownOutcome: the caller's context ended, or the disk failed, while the
	// write was in progress. It may have been applied: read back.
	ErrUnknownOutcome = errors.New("unknown whether the write was applied")

	// ErrNotKept: the event log no longer has the commit, or never had it.
	ErrNotKept = errors.New("commit is not kept")

	ErrBlobNotFound = errors.New("blob not found")
	ErrBlobType     = errors.New("blob has another media type")
	ErrBlobSize     = errors.New("blob has another size")
)

// WriteError is the error of one write of an Apply. Nothing of the call was
// applied.
type WriteError struct {
	Index int    // position in the call's writes
	Path  string // collection/rkey
	Err   error  // ErrExists, ErrNotFound, ErrInvalid*, ErrTooLarge or a *BlobError, possibly wrapped
}

func (e *WriteError) Error() string { return fmt.Sprintf("write %d, %s: %v", e.Index, e.Path, e.Err) }
func (e *WriteError) Unwrap() error { return e.Err }

// SwapError: the head is not the commit that the caller expected. Nothing of
// the call was applied.
type SwapError struct{ Head cid.Cid }

func (e *SwapError) Error() string { return fmt.Sprintf("head is another commit: %s", e.Head) }

// BlobError is the error for a blob that a record refers to, or that is read. In
// a call of several writes it is inside a *WriteError.
type BlobError struct {
	CID       cid.Cid
	Err       error  // ErrBlobNotFound, ErrBlobType or ErrBlobSize
	Want, Got string // the stored type or size, and the record's
}

func (e *BlobError) Error() string {
	if e.Want == "" && e.Got == "" {
		return fmt.Sprintf("%v: %s", e.Err, e.CID)
	}
	return fmt.Sprintf("%v: %s is %s, the record says %s", e.Err, e.CID, e.Want, e.Got)
}

func (e *BlobError) Unwrap() error { return e.Err }

// MissingError lists requested blocks that the repo doesn't have.
type MissingError struct{ CIDs []cid.Cid }

func (e *MissingError) Error() string { return fmt.Sprintf("blocks not found: %v", e.CIDs) }
