package firehose

import "errors"

// refusal ends a stream with an error frame, and then close code 1008 with its name
// as the reason, like the reference server.
type refusal struct{ name, message string }

func (r *refusal) Error() string { return r.name + ": " + r.message }

var (
	errFutureCursor = &refusal{"FutureCursor", "Cursor in the future."}
	errTooSlow      = &refusal{"ConsumerTooSlow", "Stream consumer too slow"}
	errFellBehind   = &refusal{"ConsumerTooSlow", "Stream consumer too slow: the events it needs next are no longer kept"}
)

// Other reasons to end a stream.
var (
	errGone      = errors.New("subscriber disconnected")
	errFlood     = errors.New("too many or too large messages from the subscriber")
	errGoingAway = errors.New("shutting down")
)
