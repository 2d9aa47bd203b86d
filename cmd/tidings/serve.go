package main

import (
	"io"
	"os"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
)

// checkBeforeServing refuses a file that cannot be read, in one line as other commands do, and
// invalid options before anything is opened. The registry itself would start in spite of them.
func checkBeforeServing(cmd *cobra.Command, args []string) error {
	logrus.SetOutput(io.Discard) // the registry reads the file again, with the same warnings
	c, path, err := cli.Load(args)
	logrus.SetOutput(os.Stderr)
	cmd.SilenceUsage = true
	if err != nil {
		return err
	}
	_, _, err = cli.Parse(c, path)
	return err
}
