package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	"github.com/tidings-dev/tidings/atproto/hold"
	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/cmd/tidings/internal/accountcmd"
	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
	"github.com/tidings-dev/tidings/cmd/tidings/internal/holdcmd"
	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/config/explain"
)

func configCommand() *cobra.Command {
	parent := &cobra.Command{
		Use:   "config",
		Short: "`config` inspects configuration files",
	}
	parent.AddCommand(configCheckCommand())
	return parent
}

func configCheckCommand() *cobra.Command {
	var online bool
	c := &cobra.Command{
		Use:   "check <config>",
		Short: "`config check` explains a configuration file and lists its errors",
		Long: "`config check` reads a registry's configuration file, its environment variables and the secrets that they name. It changes nothing.\n" +
			"It prints what Tidings will do and warnings, and fails if an option is invalid. The registry may be running or stopped.\n" +
			"With --online it also asks the network: whether the DID document agrees, whether the relays know the hold, or whether the account\n" +
			"can log in, which uses the session that is kept. It fails if something is not as the configuration says.",
		Example:      "  tidings config check config.yml\n  tidings config check --online config.yml",
		Args:         cobra.MaximumNArgs(1),
		SilenceUsage: true,
		RunE: cli.Run(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			o, err := configCheck(cmd.OutOrStdout(), args)
			if err != nil || o == nil || !online {
				return err
			}
			return accountcmd.CheckOnline(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr(), o)
		}),
	}
	c.Flags().BoolVar(&online, "online", false, "also ask the network about the account, and log in")
	return c
}

// configCheck returns the options of a valid file, nil if it does not use Tidings.
func configCheck(out io.Writer, args []string) (*config.Options, error) {
	c, path, err := cli.Load(args)
	if err != nil {
		return nil, err
	}
	o, found, err := cli.Parse(c, path)
	if err != nil {
		return nil, err
	}
	if !found {
		fmt.Fprintf(out, "%s has no entry `name: tidings` under middleware.repository: the registry runs without Tidings.\n", path)
		return nil, nil
	}
	if !o.Enabled {
		fmt.Fprintf(out, "%s disables Tidings: the registry runs without it.\n", path)
		return nil, nil
	}
	warnings, invalid := o.Warnings(), checkFiles(o)
	if text := repeatedKeys(path); text != "" {
		warnings = append(warnings, text)
	}
	if invalid != nil {
		return nil, cli.ListErrors(path, invalid)
	}
	fmt.Fprintf(out, "%s is valid.\n\n", path)
	w := cli.NewTable(out)
	explain.Options(func(topic, format string, args ...any) {
		w.Row("  "+topic, format, args...)
	}, c, o)
	if err := w.Flush(); err != nil {
		return nil, err
	}
	if len(warnings) > 0 {
		fmt.Fprintln(out)
	}
	for _, w := range warnings {
		fmt.Fprintf(out, "warning: %s\n", w)
	}
	if o.Hold != nil && !cli.Exists(o.KeyFile()) {
		fmt.Fprintf(out, "\nThe account does not exist yet. Create it with: tidings hold init %s\n", path)
	}
	return o, nil
}

// checkFiles reads the files that the options name and that a start or `hold init` needs.
func checkFiles(o *config.Options) error {
	var errs []error
	if cli.Exists(o.Data) {
		errs = append(errs, cli.CheckFolder(o))
	}
	if o.Redis != nil {
		if _, err := o.Redis.Client(); err != nil {
			errs = append(errs, err)
		}
	}
	if o.Account != nil {
		errs = append(errs, o.Account.CheckPassword())
	}
	if o.Remote != nil {
		errs = append(errs, o.Remote.CheckPassword(), checkRemoteKey(o))
	}
	if o.Hold != nil {
		errs = append(errs, checkHold(o))
	}
	if o.Announce != nil && o.Announce.Publication != nil {
		_, err := o.Announce.Publication.ReadIcon()
		errs = append(errs, err)
	}
	return errors.Join(append(errs, o.API.CheckToken())...)
}

// checkHold reads the key and the avatar of a hold.
func checkHold(o *config.Options) error {
	err := at("options.hold.key_file", hold.CheckKey(holdcmd.RepoConfig(o, io.Discard)))
	if o.Hold.Avatar != "" {
		err = errors.Join(err, at("options.hold.avatar", hold.CheckAvatar(o.Hold.Avatar)))
	}
	return err
}

// checkRemoteKey reads the key of remote.hostname. The first start creates a missing one.
func checkRemoteKey(o *config.Options) error {
	if o.Remote.Hostname == "" {
		return nil
	}
	_, err := identity.LoadKey(o.RemoteKeyFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return at("options.remote.key_file", err)
}

// at returns an error with the path of its option.
func at(path string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// repeatedKeys reports duplicate keys, which the registry's parser accepts: it
// uses the last one.
func repeatedKeys(path string) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	var duplicates *yaml.TypeError
	if err := yaml.Unmarshal(raw, new(map[string]any)); errors.As(err, &duplicates) {
		return "duplicate key, of which the registry uses the last: " + strings.Join(duplicates.Errors, "; ")
	}
	return ""
}
