package firehose

// Event is one finished frame.
type Event struct {
	Seq   uint64
	Frame []byte // sent as one binary message
}

// Log is an event log. Sequence numbers only grow; each is the unix time in
// microseconds at which the event was made, or a little later. Only durable
// events are seen through it. Its methods are safe to call together.
type Log interface {
	// Events returns events after a sequence number, oldest first, up to limit;
	// fewer, but at least one, if they are large. Empty at the end of the log.
	Events(after uint64, limit int) ([]Event, error)

	// Head is the sequence number of the last event.
	Head() uint64

	// Lost is the sequence number of the last event that is no longer kept, 0
	// while all are.
	Lost() (uint64, error)

	// Wake gives a channel that is closed once there may be an event after a
	// sequence number.
	Wake(after uint64) <-chan struct{}
}
