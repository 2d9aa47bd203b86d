package cli

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/internal/terminal"
)

// CloseTimeout bounds the work that is finished after the registry has stopped.
// The next start does the rest.
const CloseTimeout = 10 * time.Second

// errInterrupted is the error of a command that a signal has ended.
var errInterrupted = errors.New("interrupted")

// Run returns the RunE of a command whose context the first SIGINT or SIGTERM cancels. The
// second one ends the process.
func Run(run func(ctx context.Context, cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		context.AfterFunc(ctx, stop)
		err := run(ctx, cmd, args)
		if ctx.Err() != nil {
			terminal.ClearLine(cmd.ErrOrStderr())
		}
		if errors.Is(err, context.Canceled) {
			return errInterrupted
		}
		return err
	}
}
