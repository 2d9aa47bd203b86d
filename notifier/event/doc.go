// Package event has the events of a registry, their encoding in the journal, and the
// plan of what each sink does for one.
package event
