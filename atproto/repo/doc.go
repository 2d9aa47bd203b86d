// Package repo is one signed AT Protocol repository, called a repo, in a Pebble
// database.
//
// It owns the records, the Merkle search tree over them, the signed head, the
// event log of the firehose, and the blobs. Apply is the only way to write
// records: one goroutine turns each call into one signed commit, which changes
// records, tree, head, event log and blob references in one atomic batch. Calls
// that are pending at the same time share one fsync.
//
// It promises that an answered Apply is durable; that readers (Get, List,
// Export, Events) see only durable data; that nodes which leave the tree are
// deleted with the commit that removes them; and that memory doesn't grow with
// the repo.
//
// It trusts the bytes of a record to be canonical DAG-CBOR. The meaning of records
// is left to atproto/lexicon, authorization to atproto/hold, the delivery of events
// to atproto/firehose, and the verification and repair of a stopped repo to
// package repair. Package layout has the format on disk.
package repo
