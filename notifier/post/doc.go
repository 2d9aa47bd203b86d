// Package post writes the announcement of a push as an app.bsky.feed.post
// record.
//
// It is pure: the same facts give the same record. Every record that it returns
// is accepted by a PDS and shown in full by the app: the text is within the
// limits of the lexicon in bytes and graphemes, and facets are on rune boundaries
// inside the text. The notifier decides which pushes are announced, when, and
// under which record key.
package post
