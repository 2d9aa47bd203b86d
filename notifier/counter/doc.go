// Package counter counts pulls and pushes: per repository, tag and day, by
// class.
//
// There are two sets of numbers. The local numbers are authoritative: events of
// a journal are folded into a Pebble store in the same synced batch as the
// cursor, so an event counts exactly once whatever crashes. Redis, if
// configured, has the numbers of every registry, each under a registry id of its
// own, and readers add them up. They are published as absolute values. Writing
// them again changes nothing, so a Redis that was flushed, restored from an old
// dump, or failed over to a lagging replica is repaired by publishing again; the
// next round detects the loss, since every script call changes the registry's
// record. Only one process writes under a registry id; claim.go explains how that
// is enforced.
//
// Reading the journal and access control are the caller's. Package classify decides the
// class of a request before its event is recorded.
package counter
