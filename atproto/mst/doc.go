// Package mst implements the Merkle search tree of an AT Protocol repository, by
// https://atproto.com/specs/repository#mst-structure: the paths (collection/rkey) of its
// records in order, each with the CID of the record.
//
// Node reads an encoded node in place, Walk visits a tree in the order of its
// paths, Builder encodes a tree from sorted paths, and Tree changes one and
// returns the difference. Changes are made by indigo's mst, of which Tree loads
// only the nodes on the search path, so memory doesn't grow with the tree.
//
// The package does no I/O. Its callers load nodes, and store those that a
// change adds.
package mst
