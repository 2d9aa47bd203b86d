package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/config"
)

func holdCommand() *cobra.Command {
	parent := &cobra.Command{
		Use:   "hold",
		Short: "`hold` looks after the account that is embedded in the registry",
	}
	parent.AddCommand(
		holdInitCommand(), holdServeCommand(), holdStatusCommand(), holdVerifyCommand(), holdRepairCommand(),
		holdExportCommand(), holdImportCommand(), holdKeyCommand(), holdPasswordCommand(),
	)
	return parent
}

// holdOptions reads the options of a file that has to have a hold.
func holdOptions(args []string) (*config.Options, string, error) {
	o, path, err := options(args)
	if err != nil {
		return nil, path, err
	}
	if o.Hold == nil {
		return nil, path, fmt.Errorf("%s has no hold; add `hold: {hostname: …}` to the options of tidings", path)
	}
	return o, path, nil
}
