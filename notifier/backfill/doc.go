// Package backfill records the manifests that were in the registry's storage before
// Tidings was, or that it does not know for another reason.
//
// # How a backfill works
//
// A job is durable in the state, and one job at a time exists. It goes through storage
// twice: first it counts the manifests without records, for the estimate, then it appends
// an event for each to the journal. The records sink handles these events like any others:
// it asks storage again, writes what is missing, and keeps outbox and ledger. The events
// have no class and no tag, so they are neither counted nor announced.
//
// A manifest is passed over if the ledger has it. So a repeated event has no effect, and it
// does not matter where a crash interrupts the job. What is durable of its progress only
// saves work: a row for each repository whose events are all in the journal, which is
// independent of the order in which storage lists them.
//
// Pushes go first. The job appends no event while
//
//   - its own pending events have many records (Config.Window), so that a push waits for one
//     commit at most,
//   - the account has few points left, see Config.Spare,
//   - the journal is half full, since at its limit it gives up events, or
//   - the disk has too little free space.
package backfill
