// Package notifier records what happens in a registry, and publishes and counts
// it.
//
// A push, a pull or a delete becomes an event in the journal. Three sinks read the
// journal, each at its own pace and with its own cursor: package records writes layer
// records to the repo of an AT Protocol account, package announce writes one Bluesky post
// for each pushed image, and the counter counts. What a sink does for an event is its
// event.Plan, a pure function of the event.
//
// No event is lost, and none has an effect twice, whenever the process ends: each
// sink makes a batch of writes durable before it sends them, and moves its cursor
// after they are confirmed. See Intent for pushes and deletes that are interrupted,
// delivery.Outbox for writes whose response was lost, and reconcile for stores that were
// restored or lost.
//
// The package knows neither HTTP nor the registry. Package middleware calls it, and
// a delivery.Publisher makes its writes.
package notifier
