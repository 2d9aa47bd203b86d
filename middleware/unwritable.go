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

// unwritableError means that a part could not be opened because its disk is full,
// over quota, or read-only. Opening it later can succeed without a restart.
type unwritableError struct{ error }

func (e *unwritableError) Unwrap() error { return e.error }

// markUnwritable wraps an error of such a disk in an *unwritableError, and returns any
// other error unchanged.
func markUnwritable(err error) error {
	for _, cause := range []error{store.ErrNoSpace, journal.ErrFull, syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS} {
		if errors.Is(err, cause) {
			return &unwritableError{err}
		}
	}
	return err
}

func isUnwritable(err error) bool {
	var unwritable *unwritableError
	return errors.As(err, &unwritable)
}

// diskProblem describes such an error for the public, without file names.
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
