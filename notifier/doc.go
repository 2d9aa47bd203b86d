// Package notifier records what happens in a registry, and publishes and counts
// it.
//
// A push, a pull or a delete becomes an Event in the journal. Three sinks read the
// journal, each at its own pace and with its own cursor: records writes layer
// records to the repo of an AT Protocol account, announce writes one Bluesky post
// for each pushed image, and counters counts. What a sink does for an event is its
// Plan, a pure function of the event.
//
// No event is lost, and none has an effect twice, whenever the process ends: each
// sink makes a batch of writes durable before it sends them, and moves its cursor
// after they are confirmed. See Intent for pushes and deletes that are interrupted,
// outbox for writes whose answer was lost, and stores.go for stores that were
// restored or lost.
//
// The package knows neither HTTP nor the registry. Package middleware calls it, and
// a Publisher makes its writes.
package notifier
