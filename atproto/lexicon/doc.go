// Package lexicon defines the records and procedures that Tidings writes and accepts:
// their Go types, their embedded JSON schemas, validation against the schemas, and the
// AT Protocol data model in JSON and in DAG-CBOR.
//
// The encoding of a record is deterministic. Values outside the data model (floats,
// integers that JavaScript would round, duplicate keys, invalid UTF-8) are errors. The
// package uses no network, repository or clock.
package lexicon
