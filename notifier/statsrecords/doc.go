// Package statsrecords publishes the counts of public repositories as
// io.atcr.hold.stats records of the account, one for each repository and owner.
//
// At each interval a round compares the counts with what is published. It creates
// and updates the records of public repositories whose counts have grown, and
// deletes those of repositories that are not public any more. A record never gets
// a lower count or an earlier time than it has. Each record is written at most
// once in a round.
//
// For each record there is a row in the state, so that records that do not change
// are not read again. A round works as follows:
//
//  1. The time at which it begins is made durable in state.StatsRound. If there
//     was no round before, or the ledger was rebuilt since, the rows are first
//     read from the account's records.
//  2. The counts are compared with the rows.
//  3. For each difference the record is read from the account. This decides
//     which write is needed: a create if there is no record, an update if it is
//     older than the round and the counts are higher, otherwise none.
//  4. Up to 200 writes are sent in one commit.
//  5. The rows of the batch are written. Steps 3 to 5 are repeated until all
//     differences are published, and the round ends.
//
// Crash cases:
//
//   - Between 1 and 4: nothing was sent. The round continues after the restart.
//   - Between 4 and 5, or if the answer to 4 is lost: the rows are older than the
//     records. The same differences are found, and step 3 reads the records:
//     those that were written have a time within the round, and only their rows
//     are written. Rows are not synced, since losing them is the same case.
//   - The state is lost, or older than the account: step 3 finds records that the
//     rows do not know, or know with lower counts. None of them is created twice.
//   - The counts are lost and begin again: the records keep what they have until
//     the counts exceed it.
//
// A record of a repository that is not counted here is left alone: a registry that
// shares the account may have written it.
//
// forget.go deletes the records of an owner who asks for it.
package statsrecords
