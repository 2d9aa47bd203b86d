// Command tidings is the CNCF distribution registry with Tidings built in. It
// has distribution's commands, storage drivers and behaviour; without a tidings
// entry in its configuration it is the upstream registry. It adds the commands that
// `tidings help` lists, and extends `garbage-collect`, which records the manifests that it
// deletes.
package main

import (
	"context"
	"errors"
	_ "net/http/pprof"
	"os"

	"github.com/distribution/distribution/v3/registry"
	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/cmd/tidings/internal/accountcmd"
	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
	"github.com/tidings-dev/tidings/cmd/tidings/internal/holdcmd"
	_ "github.com/tidings-dev/tidings/internal/drivers"
	"github.com/tidings-dev/tidings/middleware"
)

func main() {
	disableTraces()
	root := registry.RootCmd
	root.Use = "tidings"
	root.Short = "A container registry that announces pushes on the AT Protocol network"
	root.Long = root.Short + ", and counts pushes and pulls."
	versionFlag(root)
	registry.ServeCmd.PreRunE = checkBeforeServing
	registry.ServeCmd.Example = "  tidings serve config.yml"
	registry.GCCmd.Example = "  tidings garbage-collect config.yml --delete-untagged"
	recordCollected(registry.GCCmd)
	for _, c := range commands() {
		explainUsage(c)
		root.AddCommand(c)
	}

	// The registry exits the process itself when draining takes too long.
	logrus.RegisterExitHandler(func() { shutdown() })
	c, err := root.ExecuteC()
	code := exitCode(c, err)
	if !shutdown() {
		code = max(code, 1)
	}
	os.Exit(code)
}

// exitCode returns the exit code of a command that has ended with an error, or with nil.
func exitCode(c *cobra.Command, err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, holdcmd.ErrDamaged), errors.Is(err, errDiffers), statusUnknown(c, err):
		return 2
	}
	return 1
}

// commands are the commands that are added to those of distribution.
func commands() []*cobra.Command {
	return []*cobra.Command{
		versionCommand(),
		configCommand(),
		statusCommand(),
		sinksCommand(),
		journalCommand(),
		deadCommand(),
		backupCommand(),
		restoreCommand(),
		holdcmd.Command(),
		accountcmd.Command(),
		announceCommand(),
		accountcmd.RemoteCommand(),
		backfillCommand(),
		gcCommand(),
		purgeCommand(),
		redisCommand(),
		reconcileCommand(),
		quotaCommand(),
		unusedCommand(),
	}
}

// shutdown closes everything that the middleware opened, and reports whether it succeeded.
func shutdown() bool {
	ctx, cancel := context.WithTimeout(context.Background(), cli.CloseTimeout)
	defer cancel()
	if err := middleware.Shutdown(ctx); err != nil {
		logrus.WithError(err).Errorln("tidings: shutdown failed")
		return false
	}
	return true
}
