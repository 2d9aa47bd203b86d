// Package middleware is the plugin for a CNCF distribution registry: a repository
// middleware with the name "tidings", which a blank import registers.
//
// It creates all other parts of Tidings for a registry's configuration, connects
// them (wire.go, and a file for each part), serves the routes of the account and the
// API next to the registry's own, and reports health. A registry whose configuration
// has no entry "tidings" is not changed at all.
//
// A data folder on a disk that is full or read-only does not keep the registry
// from starting: until the folder can be opened, pulls are served and pushes and
// deletes are refused (fallback.go). A hold that cannot be opened does not keep
// pushes and pulls from being recorded (deferredhold.go).
//
// What happened during a request is decided by middleware/observe, what an event
// means by notifier, what options mean by config, and who may call a route by
// atproto/hold and notifier/stats.
package middleware
