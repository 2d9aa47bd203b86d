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

// noRoomError says that something could not be opened because its disk is full
// or read-only. That can end without a restart.
type noRoomError struct{ error }

func (e *noRoomError) Unwrap() error { return e.error }

// markNoRoom makes a *noRoomError of an error that is one, and leaves any other.
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

// diskProblem says what is wrong with the disk in words for everybody, without
// the names of files.
func diskProblem(err error) string {
	switch {
	case errors.Is(err, syscall.EROFS):
		return "the disk is read-only"
	case errors.Is(err, syscall.EDQUOT):
		return "the disk quota is used up"
	}
	return "the disk is full"
}

const (
	firstRetry   = 2 * time.Second
	longestRetry = time.Minute
)

// openLater calls open until it succeeds or ctx ends: after two seconds, then
// with longer pauses up to a minute.
func openLater(ctx context.Context, log *slog.Logger, what string, open func(context.Context) error) {
	for pause := firstRetry; ; pause = min(2*pause, longestRetry) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		err := open(ctx)
		if err == nil {
			log.Warn(what + " is open now; nothing has to be restarted")
			return
		}
		if ctx.Err() == nil {
			log.Warn(what+" still can't be opened", "next", min(2*pause, longestRetry), "err", err)
		}
	}
}
