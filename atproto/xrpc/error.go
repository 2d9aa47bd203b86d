package xrpc

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Error is an XRPC error. All of it is sent to the client.
type Error struct {
	Status     int
	Name       string
	Message    string
	RetryAfter time.Duration // sent as a header, rounded up to seconds; 0: not sent
	Quiet      bool          // not logged: anonymous clients can cause it as often as they like
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s", e.Name, e.Message) }

// NewError returns an Error with a constant message.
func NewError(status int, name, message string) *Error {
	return &Error{Status: status, Name: name, Message: message}
}

// Errorf returns an Error with a formatted message.
func Errorf(status int, name, format string, args ...any) *Error {
	return NewError(status, name, fmt.Sprintf(format, args...))
}

// InvalidRequest returns a 400 with the name InvalidRequest.
func InvalidRequest(format string, args ...any) *Error {
	return Errorf(http.StatusBadRequest, "InvalidRequest", format, args...)
}

// TooManyRequests returns a 429 that asks the client to wait.
func TooManyRequests(wait time.Duration) *Error {
	return &Error{Status: http.StatusTooManyRequests, Name: "RateLimitExceeded", Message: "Rate Limit Exceeded", RetryAfter: wait}
}

// Unavailable returns a 503 with the name ServiceUnavailable.
func Unavailable(message string) *Error {
	return NewError(http.StatusServiceUnavailable, "ServiceUnavailable", message)
}

// Errors that methods share. Those of uploads have the other names that the
// reference server gives them.
var (
	ErrAuthMissing    = NewError(http.StatusUnauthorized, "AuthMissing", "Authentication Required")
	ErrUploadTooLarge = NewError(http.StatusRequestEntityTooLarge, "PayloadTooLarge", "request entity too large")

	errUploadEncoding = NewError(http.StatusUnsupportedMediaType, "UnsupportedMediaType", "unsupported content-encoding")
	errTooLarge       = NewError(http.StatusRequestEntityTooLarge, "PayloadTooLargeError", "request entity too large")
	errEncoding       = NewError(http.StatusUnsupportedMediaType, "UnsupportedMediaTypeError", "unsupported content encoding")
	errIncomplete     = InvalidRequest("the request body ended too early or took too long")
	errCompressed     = InvalidRequest("the request body does not match its Content-Encoding, ended too early or took too long")
	errQueryTooLong   = NewError(http.StatusRequestURITooLong, "URITooLong", "the query is too long")
	errInternal       = NewError(http.StatusInternalServerError, "InternalServerError", "Internal Server Error")
)

// asError returns what the client gets for err.
func (s *Server) asError(err error) *Error {
	var known *Error
	if errors.As(err, &known) {
		return known
	}
	if s.Errors != nil {
		if known = s.Errors(err); known != nil {
			return known
		}
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return Unavailable("the request took too long")
	}
	return errInternal
}
