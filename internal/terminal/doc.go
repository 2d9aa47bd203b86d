// Package terminal is how commands interact with a person: they ask for confirmation, and
// show the progress of long tasks.
package terminal
