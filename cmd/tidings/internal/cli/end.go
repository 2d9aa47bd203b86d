package cli

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// CloseTimeout bounds the work that is finished after the registry has stopped.
// The next start does the rest.
const CloseTimeout = 10 * time.Second

// Interruptible returns a context that the first SIGINT or SIGTERM cancels.
func Interruptible() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
}
