// Package handles resolves handles to DIDs (https://atproto.com/specs/handle). A handle
// names its DID in DNS or on its host, and the DID's document has to name the handle.
//
// Names are chosen by others, so all requests go through atproto/guard and have limits of
// time, size and number. Results are cached, failures with a delay that grows; the cache
// has a maximum size. Cached never waits, so that it can be called while a client waits.
package handles
