// Package notifier turns what happens in a registry into facts that are on
// disk, and carries those facts to their readers.
//
// A push, pull or delete becomes an Event in the journal; from there three
// sinks take it, each at its own pace and each with its own cursor: records
// (layer records in an AT Protocol repository), announce (one Bluesky post)
// and counters (numbers, and their sum in Redis). The package promises that
// nothing is lost and nothing is done twice at a sink, whatever dies in
// between. It does not know HTTP or the registry: middleware tells it what
// happened, and a Publisher writes what it planned.
package notifier
