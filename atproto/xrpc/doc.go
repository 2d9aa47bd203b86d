// Package xrpc serves XRPC methods over HTTP (https://atproto.com/specs/xrpc):
// it finds the method, checks access, validates parameters and input against the
// schemas of atproto/lexicon, limits bodies in size and time, and writes results
// and errors.
//
// It knows nothing of repos or accounts. Handlers get a Call and return a
// value for JSON, a Stream or Empty; an error that is not an *Error is translated
// by Server.Errors or becomes a 500, whose cause goes to the log only. Statuses and
// error names are those of the reference server.
package xrpc
