// Package stats serves counts, pushes and health as a JSON API under
// /tidings/api/v1.
//
// It is read-only and no part of a push or a pull. It decides which repositories a
// client may see: without a token, a private repository cannot be told from one
// that does not exist. The counts come from package counter.
package stats
