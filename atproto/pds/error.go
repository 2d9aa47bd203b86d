package pds

import (
	"cmp"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/atproto/repo"
)

// Outcome says what is known of a call that failed, and what can be done.
type Outcome int

const (
	// Unknown: the call may have been applied. The connection broke, the answer
	// was no XRPC answer, or the PDS failed inside: the reference PDS answers a
	// create of a record key that exists with a bare 500.
	Unknown Outcome = iota
	// Refused: the call was not applied, and the same call never will be.
	Refused
	// TooLarge: the call was not applied; a smaller one may be.
	TooLarge
	// Limited: the call was not applied; it can be repeated at Error.Until.
	Limited
	// Suspended: the account cannot write now. It is deactivated or taken down, or
	// the password was revoked.
	Suspended
)

func (o Outcome) String() string {
	return [...]string{"unknown", "refused", "too large", "limited", "suspended"}[o]
}

// An Error is a call that failed. Its text holds no secret.
type Error struct {
	Method  string    // NSID
	Status  int       // of HTTP; 0: no answer
	Name    string    // XRPC error name, such as "InvalidRequest"; "" if the answer has none
	Message string    // at most 300 bytes
	Until   time.Time // when Limited, or Suspended without a login: not before; zero: not known
	Outcome Outcome
	Planned bool  // when Limited: no call has failed, and the caller waits by itself
	Err     error // of the connection, or of reading the answer

	reason string // of Reason, where the answer has none; "": not known
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Method)
	switch {
	case e.Status == 0:
		fmt.Fprintf(&b, ": %v", e.Err)
		return b.String()
	case e.Name == "" && e.Message == "":
		fmt.Fprintf(&b, ": status %d %s", e.Status, http.StatusText(e.Status))
	case e.Name == "":
		fmt.Fprintf(&b, ": status %d: %s", e.Status, e.Message)
	default:
		fmt.Fprintf(&b, ": status %d %s: %s", e.Status, e.Name, e.Message)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// Is reports whether the PDS refused a write because it does not have a blob that the
// record refers to: errors.Is(err, repo.ErrBlobNotFound), as for an embedded repo.
func (e *Error) Is(target error) bool {
	return target == repo.ErrBlobNotFound && e.Name == blobNotFound && e.Method == applyWrites
}

// Reason says why the account cannot write, in words of this program: unlike Error, which
// repeats what the service said and names files, it can be shown to anybody. It is "" if
// the account can write, or if the reason is not known.
func (e *Error) Reason() string {
	if e.Outcome != Suspended {
		return ""
	}
	return cmp.Or(e.reason, suspendedBy[e.Name])
}

// suspendedBy are the reasons by error name.
var suspendedBy = map[string]string{
	"AccountDeactivated": reasonDeactivated, "RepoDeactivated": reasonDeactivated,
	"AccountTakedown": reasonTakenDown, "RepoTakendown": reasonTakenDown,
	"AccountSuspended": reasonSuspended, "RepoSuspended": reasonSuspended,
	"AccountNotFound": reasonNotFound, "RepoNotFound": reasonNotFound,
}

const (
	reasonDeactivated   = "it is deactivated"
	reasonTakenDown     = "it is taken down"
	reasonSuspended     = "it is suspended by its service"
	reasonNotFound      = "its service does not have it"
	reasonPassword      = "its service refuses the password"
	reasonNoPassword    = "its password file cannot be read"
	reasonEmptyPassword = "its password file is empty"
	reasonLogins        = "no login is left for a while"
	reasonIdentity      = "its identifier, DID document and service do not agree"
)

// Temporary reports whether the same call can succeed later.
func (e *Error) Temporary() bool { return e.Outcome != Refused && e.Outcome != TooLarge }

// expired reports whether another access token may be all it takes. The reference
// PDS says so with status 400, others with 401.
func (e *Error) expired() bool {
	return (e.Status == http.StatusBadRequest || e.Status == http.StatusUnauthorized) &&
		(e.Name == "ExpiredToken" || e.Name == "InvalidToken")
}

// outcome classifies an answer that is not 200 by its status and error name.
func outcome(status int, name string) Outcome {
	switch name {
	case "AccountDeactivated", "AccountTakedown", "AccountSuspended", "AccountNotFound",
		"AuthenticationRequired", "AuthMissing", "AuthRequired", "ExpiredToken", "InvalidToken",
		"RepoDeactivated", "RepoTakendown", "RepoSuspended", "RepoNotFound":
		return Suspended
	case "PayloadTooLargeError", "PayloadTooLarge":
		return TooLarge
	case "RateLimitExceeded":
		return Limited
	}
	switch {
	case status == http.StatusTooManyRequests:
		return Limited
	case status == http.StatusRequestEntityTooLarge:
		return TooLarge
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return Suspended
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly, status < 400, status >= 500:
		return Unknown
	case name == "":
		return Unknown // not the answer of a PDS: a proxy's, or of another program
	}
	return Refused
}
