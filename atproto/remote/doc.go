// Package remote is a client of another hold: it reports pushes and pulls of this
// registry to it with io.atcr.hold.notifyManifest.
//
// It owns the address of the hold, the service tokens of the calls, the classification of
// the answers, and the check of a call whose answer was lost. It keeps nothing on disk and
// never repeats a call by itself: the caller keeps the call before it is sent, and asks
// Written before it sends it again.
package remote
