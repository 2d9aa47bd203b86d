package cli

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// CloseTimeout bounds the work that is finished after the registry has stopped.
// The next start does the rest.
const CloseTimeout = 10 * time.Second

// Run returns the RunE of a command whose context the first SIGINT or SIGTERM cancels.
func Run(run func(ctx context.Context, cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		return run(ctx, cmd, args)
	}
}
