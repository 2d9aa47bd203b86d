package notifier

// A sequenced event has its sequence number in the push stream, and its plan.
// Event and plan are shared by the sinks and must not be changed.
type sequenced struct {
	seq uint64
	*Event
	plan *Plan
}
