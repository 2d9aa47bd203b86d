// Package lexicon knows the records and procedures that Tidings writes and
// accepts: their Go types, their JSON schemas (embedded), the AT Protocol
// data model between JSON and DAG-CBOR, and validation of one against the
// other.
//
// It promises that two machines given the same record make the same bytes,
// and that nothing outside the data model (floats, integers that JavaScript
// would round, duplicate keys, invalid UTF-8) ever becomes a record. It knows
// no network, no repository and no clock.
package lexicon
