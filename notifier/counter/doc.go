// Package counter counts what happened to images: per repository, tag and day,
// by class.
//
// It owns two sets of numbers. The local ones are the truth: a journal's events
// are folded into a Pebble store together with the cursor that says how far,
// in one synced batch, so an event counts once whatever dies. The sum over all
// replicas lives in Redis, if there is one: each journal's numbers are sent as
// absolute values, and a script replaces what that journal contributed before.
// Sending again changes nothing, so a flushed Redis, an old dump put back or a
// replica that lagged behind are all mended by sending again, and each of
// these shows at the next round by a generation that every script moves on.
//
// It also owns the rule that says of which class a request is; the class is
// decided once, when the event is recorded, and never again.
//
// What is left to others: reading the journal, and who may see the numbers.
package counter
