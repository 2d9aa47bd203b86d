// Package operate has what operators do with the events of a sink: skip pending ones, and let
// the sink handle earlier ones again.
package operate
