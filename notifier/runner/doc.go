// Package runner runs the readers of the journal.
//
// A reader takes one step after another until the process ends. After an error it waits,
// longer after each error in a row. An operator can pause the readers of a sink, and have
// work done between two steps of a reader.
package runner
