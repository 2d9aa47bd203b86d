// Package remote is the sink that reports pushes, and the reader that reports pulls, to
// another hold, with one call of io.atcr.hold.notifyManifest each.
package remote
