// Package reconcile verifies that the stores belong together: the journal, the state, the
// account's repo and the registry's storage. It rebuilds the ledger from the account's
// records, and appends an event for each difference between storage and ledger; the records
// sink handles these events like any others.
package reconcile
