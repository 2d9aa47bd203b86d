// Package pds reads and writes the repo of an account on a PDS that somebody
// else runs.
//
// It owns the session (password, tokens, the limit of logins), the budget of
// points that a PDS charges for writes, and the classification of its answers.
// Both are kept in a folder, so that neither a crash loop nor a restart exceeds
// the limits of the service.
//
// It never repeats a write. After an error for which Outcome is Unknown the write
// may have been applied: the caller reads back before it sends it again.
//
// indigo's atclient is not used: it sends bodies without a Content-Length, drops
// the headers of an error (Retry-After, RateLimit-*), follows redirects to other
// hosts with the body, and knows an expired token only as status 400.
package pds
