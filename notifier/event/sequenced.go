package event

// A Sequenced event has its sequence number in the push stream, and its plan.
// Event and plan are shared by the sinks and must not be changed.
type Sequenced struct {
	Seq uint64
	*Event
	Plan *Plan
}
