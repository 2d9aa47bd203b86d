// Package post writes the announcement of a push as an app.bsky.feed.post
// record.
//
// It is pure: facts of the registry in, a record out, the same record for the
// same facts. It promises that every record it returns is one that a PDS
// accepts and the app shows whole: text within both limits of the lexicon,
// facets that lie on rune boundaries inside the text. Which pushes are
// announced, when, and under which key is decided elsewhere.
package post
