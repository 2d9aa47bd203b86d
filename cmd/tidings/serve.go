package main

import (
	"io"
	"os"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
)

// checkBeforeServing refuses invalid options before anything is opened. The
// registry itself would start in spite of them. It reports errors in the rest of
// the file when it reads it.
func checkBeforeServing(cmd *cobra.Command, args []string) error {
	logrus.SetOutput(io.Discard) // the registry reads the file again, with the same warnings
	c, path, err := cli.Load(args)
	logrus.SetOutput(os.Stderr)
	if err != nil {
		return nil
	}
	cmd.SilenceUsage = true
	_, _, err = cli.Parse(c, path)
	return err
}
