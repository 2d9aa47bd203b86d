// Package repo keeps one signed AT Protocol repository in a Pebble database.
//
// It owns the records, the Merkle search tree over them, the signed head and
// the log of firehose frames, and changes all four in one atomic batch, with the
// counts of who refers to which blob; blobs themselves are files beside it. Apply
// is the only way to write: one goroutine turns each call into one signed
// commit, and calls that wait at the same moment share one fsync.
//
// It promises that an answered Apply is durable, that readers (Get, List,
// Export, Events) never see what is not, that nodes no longer in the tree are
// deleted with the commit that drops them, and that memory doesn't grow with
// the repository: the tree is indigo's mst, of which only the nodes on the
// search path of a write are loaded.
//
// It trusts the bytes of a record to be canonical DAG-CBOR and leaves to
// others what they mean (atproto/lexicon), who may write them (atproto/hold),
// and how frames reach subscribers.
package repo
