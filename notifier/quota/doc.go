// Package quota decides whether a push fits into its owner's quota.
//
// A quota limits the bytes of unique layers that an owner has in records, as
// notifier/usage counts them. A push is checked before its manifest is stored. A Gate
// answers from memory, without a read of the disk: it has what each owner with a limit has,
// the total and a hash of each layer, and the layers of pushes that are recorded and not yet
// written (reservations). What a push adds is the layers that are in neither. A check takes
// one lookup for each layer of the push, however many layers the owner has, and layers are
// reserved in the same step, so pushes at the same moment cannot exceed the limit together.
// BenchmarkQuotaCheck measures it.
//
// The hashes need 11 to 32 bytes of memory for each layer of an owner with a limit, and at
// each start all of these layers are read once, in the background. Every change of the usage
// goes through Commit, which then reads the changed rows.
//
// A push is refused only if it certainly does not fit:
//
//   - A push that adds no layer is never refused, also if its owner is over the limit.
//   - Manifests of pending deletes count as deleted, although another manifest may share
//     their layers. Only if a push does not fit, and deletes are pending, their rows are
//     read: for at most lookupTimeout, and by one push of an owner at a time.
//   - If that takes too long or fails, or until the layers and the pending events of the last
//     process are read at the start, the push is accepted.
//
// So an owner can exceed the limit by the shared layers of images whose deletion is pending,
// by pushes in the first moments of a process, and by pushes during a failure of the disk.
// Once the events are written, the next push is checked against the exact total. A crash loses
// nothing: reservations of recorded pushes are read from the journal again.
package quota
