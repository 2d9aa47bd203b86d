package middleware

import (
	"context"
	"errors"
	"log/slog"
	"syscall"
	"time"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/notifier/journal"
)

// noRoomError means that something could not be opened because its disk is full or
// read-only, which can end without a restart.
type noRoomError struct{ error }

func (e *noRoomError) Unwrap() error { return e.error }

// markNoRoom wraps an error of a full or read-only disk in a *noRoomError, and
// returns any other unchanged.
func markNoRoom(err error) error {
	for _, cause := range []error{store.ErrNoSpace, journal.ErrFull, syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS} {
		if errors.Is(err, cause) {
			return &noRoomError{err}
		}
	}
	return err
}

func isNoRoom(err error) bool {
	var full *noRoomError
	return errors.As(err, &full)
}

// diskProblem describes the problem of a disk for the public: without file names.
func diskProblem(err error) string {
	switch {
	case errors.Is(err, syscall.EROFS):
		return "the disk is read-only"
	case errors.Is(err, syscall.EDQUOT):
		return "the disk quota is exceeded"
	}
	return "the disk is full"
}

const (
	firstRetry   = 2 * time.Second
	longestRetry = time.Minute
)

// openLater calls open until it succeeds or ctx ends: after firstRetry, then with
// pauses that double up to longestRetry.
func openLater(ctx context.Context, log *slog.Logger, what string, open func(context.Context) error) {
	for pause := firstRetry; ; pause = min(2*pause, longestRetry) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		err := open(ctx)
		if err == nil {
			log.Warn(what + " is open now; no restart is needed")
			return
		}
		if ctx.Err() == nil {
			log.Warn(what+" still cannot be opened", "retry_in", min(2*pause, longestRetry), "error", err)
		}
	}
}
