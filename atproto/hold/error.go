package hold

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"syscall"

	"github.com/tidings-dev/tidings/atproto/repo"
)

// Error is an XRPC error: what the caller is told, and nothing else.
type Error struct {
	Status  int
	Name    string
	Message string
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s", e.Name, e.Message) }

func invalidRequest(format string, args ...any) *Error {
	return &Error{http.StatusBadRequest, "InvalidRequest", fmt.Sprintf(format, args...)}
}

var (
	errInternal    = &Error{http.StatusInternalServerError, "InternalServerError", "Internal Server Error"}
	errTooLarge    = &Error{http.StatusRequestEntityTooLarge, "PayloadTooLargeError", "request entity too large"}
	errLongQuery   = &Error{http.StatusRequestURITooLong, "URITooLong", "the query is too long"}
	errAuthMissing = &Error{http.StatusUnauthorized, "AuthMissing", "Authentication Required"}
	errNoLogins    = &Error{http.StatusUnauthorized, "AuthenticationRequired", "this hold takes no logins; its operator allows them with hold.login: true"}
)

// asError is what the caller is told about err. What it has no words for is
// errInternal, and belongs in the log.
func asError(err error) *Error {
	var known *Error
	var swap *repo.SwapError
	var write *repo.WriteError
	var blob *repo.BlobError
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &blob):
		return blobError(blob)
	case errors.As(err, &swap):
		return &Error{http.StatusBadRequest, "InvalidSwap", "Commit was at " + swap.Head.String()}
	case errors.As(err, &write):
		return writeError(write)
	case errors.Is(err, repo.ErrTooLarge):
		return invalidRequest("the commit is %v", repo.ErrTooLarge)
	case errors.Is(err, repo.ErrNoSpace):
		return &Error{http.StatusInsufficientStorage, "InsufficientStorage", repo.ErrNoSpace.Error()}
	case errors.Is(err, repo.ErrClock):
		return &Error{http.StatusServiceUnavailable, "ClockBehind", repo.ErrClock.Error()}
	case errors.Is(err, repo.ErrSuspended):
		return &Error{http.StatusServiceUnavailable, "ServiceUnavailable", repo.ErrSuspended.Error() + "; its operator's log says why"}
	case errors.Is(err, repo.ErrDeactivated):
		return errDeactivated
	case errors.Is(err, repo.ErrUnknownOutcome):
		return &Error{http.StatusInternalServerError, "UnknownOutcome", repo.ErrUnknownOutcome.Error() + ": read back before trying again"}
	case errors.Is(err, repo.ErrStopped), ofDisk(err):
		return &Error{http.StatusServiceUnavailable, "ServiceUnavailable", "this hold can't write to its disk; its operator's log says why"}
	case errors.Is(err, repo.ErrClosed):
		return &Error{http.StatusServiceUnavailable, "ServiceUnavailable", "shutting down"}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return &Error{http.StatusServiceUnavailable, "ServiceUnavailable", "it took too long"}
	}
	return errInternal
}

// ofDisk says whether a disk failed, whatever was to be done with it.
func ofDisk(err error) bool {
	for _, failed := range []error{syscall.EROFS, syscall.EIO, syscall.ENOSPC, syscall.EDQUOT} {
		if errors.Is(err, failed) {
			return true
		}
	}
	return false
}

func writeError(e *repo.WriteError) *Error {
	message := fmt.Sprintf("%s at $.writes[%d]", e.Path, e.Index)
	switch {
	case errors.Is(e, repo.ErrExists):
		return &Error{http.StatusBadRequest, "RecordAlreadyExists", "Record exists already: " + message}
	case errors.Is(e, repo.ErrNotFound):
		return &Error{http.StatusBadRequest, "RecordNotFound", "Could not locate record: " + message}
	case errors.Is(e, repo.ErrTooLarge):
		return &Error{http.StatusRequestEntityTooLarge, "PayloadTooLargeError", "Record too large: " + message}
	case errors.Is(e, repo.ErrBadKey):
		return invalidRequest("Invalid record path: %s", message)
	}
	return errInternal
}

// blobError is for a record that refers to a blob in vain.
func blobError(e *repo.BlobError) *Error {
	switch {
	case errors.Is(e, repo.ErrBlobType):
		return &Error{http.StatusBadRequest, "InvalidMimeType", fmt.Sprintf("Referenced Mimetype does not match stored blob. Expected: %s, Got: %.80s", e.Want, e.Got)}
	case errors.Is(e, repo.ErrBlobSize):
		return &Error{http.StatusBadRequest, "InvalidSize", fmt.Sprintf("Referenced Size does not match stored blob. Expected: %s, Got: %s", e.Want, e.Got)}
	}
	return &Error{http.StatusBadRequest, "BlobNotFound", "Could not find blob: " + e.CID.String()}
}
