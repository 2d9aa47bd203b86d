package journal

import (
	"errors"
	"fmt"
	"syscall"
)

// The largest payloads, in bytes.
const (
	MaxPayload = 8 << 20  // of an event
	MaxIntent  = 64 << 10 // of an intent: open ones are kept in memory and moved
)

var (
	// ErrClosed is returned by every call after Close.
	ErrClosed = errors.New("the journal is closed")

	// ErrFull is returned, wrapped together with the system's error, when
	// an append found no space left on the disk or in the quota.
	ErrFull = errors.New("the journal's disk is full: free some space, appends then work again by themselves")

	// ErrTooLarge is returned, wrapped, for an event's payload of more than
	// MaxPayload bytes, or an intent's of more than MaxIntent.
	ErrTooLarge = errors.New("the payload is too large")

	// ErrTooMany is returned by Begin while open intents take all the memory
	// that the journal gives them, 32 MiB.
	ErrTooMany = errors.New("too many pushes and deletes are open: those that were interrupted have to be settled first")

	// ErrNotOpen is returned when an intent is completed that was completed
	// or abandoned before.
	ErrNotOpen = errors.New("the intent was settled before")

	// ErrSlow is returned when the disk did not answer within Config.Wait.
	// What was appended may still arrive.
	ErrSlow = errors.New("the journal's disk does not answer in time")
)

// A CorruptError says that bytes which had reached the disk are damaged or
// gone. Open returns it rather than skip events in silence; Read returns it
// when damage appears while the journal is open.
type CorruptError struct {
	File   string // path of the damaged file
	Offset int64  // bytes into File at which the damage begins
	Stream string // "pushes" or "pulls"; empty for the journal's own file
	First  uint64 // the first event that may be concerned; 0: unknown
	Last   uint64 // the last one; 0: unknown
	Reason string
	Fix    string // what the operator can do; empty: put back or move away
}

func (e *CorruptError) Error() string {
	text := fmt.Sprintf("%s is damaged at byte %d: %s", e.File, e.Offset, e.Reason)
	if e.First != 0 && e.Last != 0 {
		text += fmt.Sprintf(" (%s, events %d to %d)", e.Stream, e.First, e.Last)
	} else if e.First != 0 {
		text += fmt.Sprintf(" (%s, events from %d on)", e.Stream, e.First)
	}
	fix := e.Fix
	if fix == "" {
		fix = "put the file back from a backup, or move it out of the folder to go on without its events"
	}
	return text + "; " + fix
}

// diskError marks err with ErrFull when it says that there is no space.
func diskError(err error) error {
	if errors.Is(err, ErrFull) {
		return err
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}
