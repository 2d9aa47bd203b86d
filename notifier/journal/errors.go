package journal

import (
	"errors"
	"fmt"
	"syscall"
)

// MaxPayload is the largest payload of an event or an intent, in bytes.
const MaxPayload = 8 << 20

var (
	// ErrClosed is returned by every call after Close.
	ErrClosed = errors.New("the journal is closed")

	// ErrFull is returned, wrapped together with the system's error, when
	// an append found no space left on the disk or in the quota.
	ErrFull = errors.New("the journal's disk is full: free some space, appends then work again by themselves")

	// ErrTooLarge is returned for a payload of more than MaxPayload bytes.
	ErrTooLarge = fmt.Errorf("the payload is larger than %d bytes", MaxPayload)

	// ErrSettled is returned when an intent is completed that was completed
	// or abandoned before.
	ErrSettled = errors.New("the intent was settled before")

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
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}
