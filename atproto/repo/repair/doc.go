// Package repair verifies, repairs and restores a stopped repo of
// atproto/repo.
//
// Verify finds damage and changes nothing. Repair derives damaged parts from intact
// ones. Restore replaces the contents with those of a CAR file. The last two never
// change the repo in place, except for a fresh commit of the same tree: they build
// a new repo next to it and exchange the two, see rebuild. No other process may
// have the repo open.
package repair
