package firehose

// Event is an encoded frame of the log.
type Event struct {
	Seq   uint64
	Frame []byte // sent as one binary message
}

// Log is an event log. Sequence numbers increase; each is the unix time of the event in
// microseconds, or a little later. Only durable events are visible. The methods are
// safe for concurrent use.
type Log interface {
	// Events returns up to limit events after a sequence number, oldest first; fewer,
	// but at least one, if they are large; none at the end of the log.
	Events(after uint64, limit int) ([]Event, error)

	// Head returns the sequence number of the last event.
	Head() uint64

	// Dropped returns the sequence number of the last event that is no longer kept, 0
	// if all are.
	Dropped() (uint64, error)

	// Wake returns a channel that is closed when there may be an event after a sequence
	// number.
	Wake(after uint64) <-chan struct{}
}
