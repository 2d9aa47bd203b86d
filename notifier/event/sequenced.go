package event

import "cmp"

// A Sequenced event has its sequence number in the push stream, and its plan.
// Event and plan are shared by the sinks and must not be changed.
type Sequenced struct {
	Seq uint64
	*Event
	Plan *Plan
}

// Result is the sequence number that the result of the event is stored under: its own, or
// that of the push that it repeats.
func (e *Sequenced) Result() uint64 { return cmp.Or(e.Origin, e.Seq) }
