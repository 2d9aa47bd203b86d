package sink

import (
	"fmt"
	"runtime/debug"
)

// A PanicError is a panic while one event was processed.
type PanicError struct {
	reason any
	Stack  []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.reason) }

// Recover makes an error of a panic: an unexpected event must end neither the
// registry nor the sink.
func Recover(err *error) {
	if reason := recover(); reason != nil {
		*err = &PanicError{reason, debug.Stack()}
	}
}
