// Package quota decides whether a push fits into its owner's quota.
//
// A quota limits the bytes of unique layers that an owner has in records, as
// notifier/usage counts them. A push is checked before its manifest is stored. A Gate
// answers from memory: it has the total and a hash of each layer of each owner with a limit,
// and the layers of pushes that are recorded and not yet written (reservations). What a push
// adds is the layers that are in neither. A check takes one lookup for each layer of the
// push, however many layers the owner has, and reserves them in the same step, so pushes at
// the same moment cannot exceed the limit together. BenchmarkQuotaCheck measures it.
//
// A deleted image counts until its records are deleted: only then is it known which of its
// layers no other image has. A push that does not fit while deletes are pending waits for
// these, at most maxWait, and is checked again.
//
// A push that adds no layer is never refused, also if its owner is over the limit. No push is
// refused while it is not known what its owner has: until the usage and the pending events of
// the last process are read at the start, while the usage is counted again, and after changes
// that could not be read. Once it is known, the next push is checked against the exact total.
// A crash loses nothing: reservations of recorded pushes are read from the journal again.
//
// The hashes need 11 to 32 bytes of memory for each layer, and an account some hundred bytes.
// At each start all layers of owners with a limit are read once, in the background. The records
// sink changes the usage with Commit, which then reads the changed rows; who changes it in
// another way calls Unload before and Load after it.
package quota
