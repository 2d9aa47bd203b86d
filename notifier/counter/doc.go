// Package counter counts what happened to images: per repository, tag and day,
// by class.
//
// It owns two sets of numbers. The local ones are the truth: a journal's events
// are folded into a Pebble store together with the cursor that says how far,
// in one synced batch, so an event counts once whatever dies. Redis, if there is
// one, has the numbers of all registries, each under an id of its own, and a
// reader adds them up. They are written as absolute values: writing again
// changes nothing, so a flushed Redis, an old dump put back or a replica that
// lagged behind are all mended by writing again, and each of these shows at the
// next round by a record that every call changes. Only one process writes under
// an id; how it knows that it may is told in own.go.
//
// It also owns the rule that says of which class a request is; the class is
// decided once, when the event is recorded, and never again.
//
// What is left to others: reading the journal, and who may see the numbers.
package counter
