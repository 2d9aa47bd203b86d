package hold

import (
	"errors"
	"net/http"
	"syscall"

	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/atproto/xrpc"
)

// repoError returns the response to an error of the repo or its disk; nil for any
// other error.
func repoError(err error) *xrpc.Error {
	var swap *repo.SwapError
	var write *repo.WriteError
	var blob *repo.BlobError
	switch {
	case errors.As(err, &blob):
		return blobError(blob)
	case errors.As(err, &swap):
		return invalidSwap("Commit was at " + swap.Head.String())
	case errors.As(err, &write):
		return writeError(write)
	case errors.Is(err, repo.ErrTooLarge):
		return xrpc.InvalidRequest("the commit is %v", repo.ErrTooLarge)
	case errors.Is(err, repo.ErrNoSpace):
		return xrpc.NewError(http.StatusInsufficientStorage, "InsufficientStorage", repo.ErrNoSpace.Error())
	case errors.Is(err, repo.ErrClock):
		return xrpc.NewError(http.StatusServiceUnavailable, "ClockBehind", repo.ErrClock.Error())
	case errors.Is(err, repo.ErrSuspended):
		return xrpc.Unavailable(repo.ErrSuspended.Error() + "; the operator's log has the reason")
	case errors.Is(err, repo.ErrDeactivated):
		return errDeactivated
	case errors.Is(err, repo.ErrUnknownOutcome):
		return xrpc.NewError(http.StatusInternalServerError, "UnknownOutcome", repo.ErrUnknownOutcome.Error()+": read back before trying again")
	case errors.Is(err, repo.ErrStopped), isDiskError(err):
		return xrpc.Unavailable("this hold can't write to its disk; the operator's log has the reason")
	case errors.Is(err, repo.ErrClosed):
		return xrpc.Unavailable("shutting down")
	}
	return nil
}

func isDiskError(err error) bool {
	for _, failed := range []error{syscall.EROFS, syscall.EIO, syscall.ENOSPC, syscall.EDQUOT} {
		if errors.Is(err, failed) {
			return true
		}
	}
	return false
}

func invalidSwap(message string) *xrpc.Error {
	return xrpc.NewError(http.StatusBadRequest, "InvalidSwap", message)
}

// writeError is for one invalid write of a commit.
func writeError(e *repo.WriteError) *xrpc.Error {
	errorf := func(status int, name, problem string) *xrpc.Error {
		return xrpc.Errorf(status, name, "%s: %s at $.writes[%d]", problem, e.Path, e.Index)
	}
	switch {
	case errors.Is(e, repo.ErrExists):
		return errorf(http.StatusBadRequest, "RecordAlreadyExists", "Record exists already")
	case errors.Is(e, repo.ErrNotFound):
		return errorf(http.StatusBadRequest, "RecordNotFound", "Could not locate record")
	case errors.Is(e, repo.ErrTooLarge):
		return errorf(http.StatusRequestEntityTooLarge, "PayloadTooLargeError", "Record too large")
	case errors.Is(e, repo.ErrInvalidPath):
		return errorf(http.StatusBadRequest, "InvalidRequest", "Invalid record path")
	}
	return nil
}

// blobError is for a record that refers to a blob that is missing or different.
func blobError(e *repo.BlobError) *xrpc.Error {
	const status = http.StatusBadRequest
	switch {
	case errors.Is(e, repo.ErrBlobType):
		return xrpc.Errorf(status, "InvalidMimeType", "Referenced Mimetype does not match stored blob. Expected: %s, Got: %.80s", e.Want, e.Got)
	case errors.Is(e, repo.ErrBlobSize):
		return xrpc.Errorf(status, "InvalidSize", "Referenced Size does not match stored blob. Expected: %s, Got: %s", e.Want, e.Got)
	}
	return xrpc.NewError(status, "BlobNotFound", "Could not find blob: "+e.CID.String())
}
