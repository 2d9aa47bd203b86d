package accountcmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/atproto/pds"
	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
	"github.com/tidings-dev/tidings/internal/terminal"
)

// accountTimeout bounds all calls of `account init`.
const accountTimeout = 2 * time.Minute

// declarations are what `account init` sets; nil leaves one as it is.
type declarations struct {
	bot  *bool
	hide *bool
}

func accountInitCommand() *cobra.Command {
	var bot, hide bool
	c := &cobra.Command{
		Use:   "init <config>",
		Short: "`account init` logs in and sets what the account declares about itself",
		Long: "`account init` logs in to the account of the `account` section, and shows who it is and what it declares about itself. The flags\n" +
			"change that, =false undoes it: --bot labels the account as automated in its profile, which is created if it is missing, and\n" +
			"--hide-from-recommendations asks feeds that are composed by an algorithm to leave out its posts. The rest of the profile stays as\n" +
			"it is. The registry must be stopped, because it uses the same session.",
		Example:      "  tidings account init config.yml --bot",
		Args:         cobra.MaximumNArgs(1),
		SilenceUsage: true,
	}
	c.Flags().BoolVar(&bot, "bot", false, "add the label bot to the account's profile")
	c.Flags().BoolVar(&hide, "hide-from-recommendations", false, "ask feeds not to recommend the account's posts")
	c.RunE = cli.Run(func(ctx context.Context, cmd *cobra.Command, args []string) error {
		var d declarations
		if cmd.Flags().Changed("bot") {
			d.bot = &bot
		}
		if cmd.Flags().Changed("hide-from-recommendations") {
			d.hide = &hide
		}
		return accountInit(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr(), args, d)
	})
	return c
}

func accountInit(ctx context.Context, out, log io.Writer, args []string, d declarations) (err error) {
	ctx, cancel := context.WithTimeout(ctx, accountTimeout)
	defer cancel()
	o, _, err := accountOptions(args)
	if err != nil {
		return err
	}
	unlock, err := cli.LockNewData(o) // a server would count only its own logins and points
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	bar := terminal.Wait(log, "asking "+o.Account.Service)
	defer bar.End()
	a, err := openAccount(o.PDS(), bar.Writer(log))
	if err != nil {
		return err
	}
	inactive, err := a.CheckSession(ctx)
	if err != nil {
		return err
	}
	w := cli.NewTable(out)
	defer func() {
		bar.End()
		err = errors.Join(err, w.Flush())
	}()
	row := w.Row
	printIdentity(row, a.Status())
	row("session", "kept in %s", o.AccountFile())
	if inactive != "" {
		return fmt.Errorf("the account is %s at %s, so nothing can be written", inactive, o.Account.Service)
	}
	return declare(ctx, row, a, d)
}

// declare sets the declarations and prints what has changed.
func declare(ctx context.Context, row func(string, string, ...any), a *pds.Account, d declarations) error {
	before, err := a.Profile(ctx)
	if err != nil {
		return err
	}
	for _, one := range []declaration{
		{topic: "bot label", flag: "--bot", want: d.bot, is: before.Bot, set: a.SetBot},
		{topic: "hidden from recommendations", flag: "--hide-from-recommendations", want: d.hide, is: before.Hide, set: a.SetHide},
	} {
		if err := one.apply(ctx, row); err != nil {
			return err
		}
	}
	return nil
}

// declaration is one thing that the account declares or does not declare.
type declaration struct {
	topic, flag string
	want        *bool // nil: as it is
	is          bool
	set         func(context.Context, bool) (changed bool, err error)
}

func (d declaration) apply(ctx context.Context, row func(string, string, ...any)) error {
	if d.want == nil {
		change := d.flag
		if d.is {
			change += "=false"
		}
		row(d.topic, "%s (%s changes it)", yesNo(d.is), change)
		return nil
	}
	changed, err := d.set(ctx, *d.want)
	if err != nil {
		return err
	}
	outcome := "unchanged"
	if changed {
		outcome = "changed"
	}
	row(d.topic, "%s (%s)", yesNo(*d.want), outcome)
	return nil
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// printIdentity prints who the account is.
func printIdentity(row func(string, string, ...any), s pds.Status) {
	row("account", "%s", cmp.Or(s.DID, "not known yet"))
	if s.Handle != "" {
		row("handle", "%s", s.Handle)
	}
	row("service", "%s", s.Service)
	if s.Host != "" && s.Host != s.Service {
		row("host", "%s, of its repo", s.Host)
	}
}
