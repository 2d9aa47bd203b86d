package journal

import (
	"errors"
	"fmt"
	"syscall"
)

var (
	// ErrClosed is returned by every call after Close.
	ErrClosed = errors.New("journal closed")

	// ErrFull is returned, wrapped together with the system's error, if there is no
	// space on the disk or in the quota.
	ErrFull = errors.New("no space on the journal's disk: free some space; appends then succeed without a restart")

	// ErrTooLarge is returned, wrapped, for a payload of more than MaxPayload bytes, or
	// MaxIntent bytes for an intent.
	ErrTooLarge = errors.New("payload too large")

	// ErrTooMany is returned by Begin while the total size of the open intents is at
	// its maximum, 32 MiB.
	ErrTooMany = errors.New("too many open pushes and deletes: interrupted ones must be resolved first")

	// ErrNotOpen is returned by Complete if the intent has already been
	// completed or abandoned.
	ErrNotOpen = errors.New("intent not open")

	// ErrSlow is returned if the disk does not respond within Config.Wait. The record
	// may still be written.
	ErrSlow = errors.New("timeout of the journal's disk")
)

// A CorruptError reports that bytes that were durable are damaged or missing.
// Open returns it instead of skipping events silently; Read returns it for
// damage that appears while the journal is open.
type CorruptError struct {
	File   string // path of the damaged file
	Offset int64  // bytes into File at which the damage begins
	Stream string // "pushes" or "pulls"; empty for the journal's own file
	First  uint64 // sequence number of the first event that may be affected; 0: unknown
	Last   uint64 // of the last one; 0: unknown
	Reason string
	Fix    string // advice to the operator; empty: restore the file or move it away
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
		fix = "restore the file from a backup, or move it out of the folder to continue without its events"
	}
	return text + "; " + fix
}

// checkFormat returns an error unless this version supports the format of a file.
func checkFormat(path string, got int) error {
	if got == format {
		return nil
	}
	return fmt.Errorf("%s has format %d, but this version supports format %d: use the version that wrote it, or a newer one", path, got, format)
}

// diskError wraps err in ErrFull if it reports that the disk or the quota is full.
func diskError(err error) error {
	if errors.Is(err, ErrFull) {
		return err
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}
