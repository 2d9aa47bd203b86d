// Package usage keeps how many bytes of layers each owner has in records.
//
// A layer counts once for each owner, however many of the owner's manifests list it, so
// the layers are reference counted:
//
//	m/<owner> 0 <manifest>       the layers of a manifest that counts, with their sizes
//	l/<owner> 0 <layer><size>    how many of these manifests list the layer
//	o/<owner>                    the number of layers, and the sum of their sizes
//
// A row for a layer takes about 75 bytes, and a manifest about 40 for each layer.
//
// Usage changes in the batch that changes the ledger, so that a manifest counts as long as
// it has a ledger entry. After a crash the two agree: either has the change or neither. The
// first row makes both steps repeatable: a manifest that has it is not added again, and one
// that does not have it is not removed.
//
// A layer that manifests declare with different sizes counts once for each size. The result
// then does not depend on the order in which manifests are added and removed, and a recount
// of all manifests gives the same rows. Honest manifests have one size for a digest.
package usage
