// Package quota decides whether a push fits into its owner's quota.
//
// A quota limits the bytes of unique layers that an owner has in records, as
// notifier/usage counts them. A push is checked before its manifest is stored. A Gate
// answers from memory: it has the totals of owners with a limit, and the layers of pushes
// that are recorded and not yet written (reservations). What a push may add at most, the
// layers that no reservation has, is added to both. If the sum is within the limit, the push
// fits, without a read.
//
// Only if it is not, the gate looks up which of these layers count already: at most
// lookupTimeout, and one lookup for an owner at a time. It takes one read for each layer of
// this push and of pending ones, and one for the total, however many layers the owner has.
//
// What a read costs depends on what is in the state's block cache, whose size is fixed:
//
//   - A layer that the owner does not have costs no read of the disk: Bloom filters exclude it.
//   - One that was read recently, as layers that images share are, is in the cache as well. With
//     such layers a check takes at most about twice as long with a million layers as with a
//     thousand.
//   - Any other costs the read of a block of 4 kB. The rows of a hundred thousand layers fit
//     into the cache, those of a million do not.
//   - If no layers were looked up for long, other rows have replaced the filters and indexes in
//     the cache. They are read again, up to four blocks for each layer. A filter has up to about
//     100 kB with many layers, so this takes about four times as long with a million layers
//     as with a thousand.
//
// That a layer counts is known only from its row, and memory for all rows would grow with the
// layers. BenchmarkQuotaCheck measures these cases.
//
// A push is refused only if it certainly does not fit:
//
//   - A push that adds no layer is never refused, also if its owner is over the limit.
//   - The lookup reads what frees bytes first, then the total, then the layers. A batch that
//     is written in between can only make the sum smaller.
//   - Manifests of pending deletes count as deleted, although another manifest may share
//     their layers.
//   - If the lookup takes too long or fails, or the pending events of the last process are
//     not read yet, the push is accepted.
//
// So an owner can exceed the limit by the shared layers of images whose deletion is pending,
// and by pushes during a failure of the disk. Once the events are written, the next push is
// checked against the exact total. A crash loses nothing: reservations of recorded pushes
// are read from the journal again.
package quota
