package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
	"github.com/tidings-dev/tidings/config"
)

func announceCommand() *cobra.Command {
	parent := &cobra.Command{
		Use:   "announce",
		Short: "`announce` previews, lists and deletes posts",
	}
	parent.AddCommand(announcePreviewCommand(), announceListCommand(), announceDeleteCommand())
	return parent
}

// announceOptions reads the options of a file, which must have an account to post to.
func announceOptions(args []string) (*config.Options, string, error) {
	o, path, err := cli.Options(args)
	if err != nil {
		return nil, path, err
	}
	if o.Hold == nil && o.Account == nil {
		return nil, path, fmt.Errorf("%s has neither a hold nor an account section, so there are no announcements; add `hold: {hostname: …}` to the options of tidings", path)
	}
	return o, path, nil
}
