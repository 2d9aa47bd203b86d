package accountcmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/remote"
	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/internal/terminal"
)

// RemoteCommand returns `remote` with its commands.
func RemoteCommand() *cobra.Command {
	parent := &cobra.Command{
		Use:   "remote",
		Short: "`remote` manages the identity with which pushes are reported to another hold",
	}
	parent.AddCommand(remoteInitCommand(), remoteStatusCommand())
	return parent
}

// remoteOptions reads the options of a file, which must have a remote section.
func remoteOptions(args []string) (*config.Options, string, error) {
	o, path, err := cli.Options(args)
	if err != nil {
		return nil, path, err
	}
	if o.Remote == nil {
		return nil, path, fmt.Errorf("%s has no remote section; add `remote: {hold: …, hostname: …}` to the options of tidings", path)
	}
	return o, path, nil
}

func remoteInitCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "init <config>",
		Short: "`remote init` creates the key of the registry if it is missing",
		Long: "`remote init` creates the key of `remote.hostname` if it is missing, with mode 0600, and prints the DID of the registry, where its DID\n" +
			"document is served, and what the operator of the hold has to configure. With `remote.account` it only prints that.\n" +
			"The registry may be running or stopped.",
		Example:      "  tidings remote init config.yml",
		Args:         cobra.MaximumNArgs(1),
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return remoteInit(cmd.OutOrStdout(), args)
		},
	}
}

func remoteInit(out io.Writer, args []string) error {
	o, path, err := remoteOptions(args)
	if err != nil {
		return err
	}
	if a := o.Remote.Account; a != nil {
		fmt.Fprintf(out, "The calls are sent by the account %s at %s: there is no key here.\n"+
			"`tidings remote status %s` shows its DID, which the operator of %s has to accept.\n", a.Identifier, a.Service, path, o.Remote.Hold)
		return nil
	}
	did, err := identity.DIDWeb(o.Remote.Hostname)
	if err != nil {
		return err
	}
	file := o.RemoteKeyFile()
	created := "exists already"
	if _, err = identity.LoadKey(file); errors.Is(err, fs.ErrNotExist) {
		_, err = identity.CreateKey(file)
		created = "was created"
	}
	if err != nil {
		return err
	}
	source, err := identity.NewSource(did, "")
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "The registry is %s. Its key %s: %s.\nIts DID document is served at %s while the registry is running.\n\n"+
		"The operator of %s has to accept its calls. In the configuration of a hold of Tidings:\n  hold: {…, registries: [%q]}\n", did, created, file, source.URL, o.Remote.Hold, did)
	return nil
}

func remoteStatusCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "status <config>",
		Short: "`remote status` shows the sender, the hold and the pending pushes",
		Long: "`remote status` resolves the sender and the hold, and shows their DIDs, the endpoint of the hold, the session of an account, and\n" +
			"the pending events of a running registry. It makes no call of the hold, and can be used while a registry is running.",
		Example:      "  tidings remote status config.yml",
		Args:         cobra.MaximumNArgs(1),
		SilenceUsage: true,
		RunE: cli.Run(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			return remoteStatus(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr(), args, asJSON)
		}),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// remoteReport is what `remote status` shows.
type remoteReport struct {
	DID     string        `json:"did,omitempty"` // of the sender
	Key     string        `json:"keyFile,omitempty"`
	Problem string        `json:"problem,omitempty"` // with the sender
	Session *sessionState `json:"session,omitempty"` // of an account
	Hold    remoteHold    `json:"hold"`
	Backlog cli.Backlog   `json:"backlog"`
}

// remoteHold is the hold as its DID document describes it.
type remoteHold struct {
	DID      string `json:"did"`
	Endpoint string `json:"endpoint,omitempty"`
	Problem  string `json:"problem,omitempty"`
}

func remoteStatus(ctx context.Context, out, log io.Writer, args []string, asJSON bool) error {
	o, _, err := remoteOptions(args)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	bar := terminal.Wait(log, "asking the network")
	defer bar.End()
	r, err := reportSender(ctx, o, bar.Writer(log))
	if err != nil {
		return err
	}
	r.Hold = resolveHold(ctx, o.Remote)
	if r.Backlog, err = cli.ReadBacklog(ctx, o); err != nil {
		return err
	}
	bar.End()
	if asJSON {
		return cli.PrintJSON(out, r)
	}
	return r.print(out)
}

// reportSender reports who sends the calls, without a login.
func reportSender(ctx context.Context, o *config.Options, log io.Writer) (r remoteReport, err error) {
	if o.Remote.Account == nil {
		r.Key = o.RemoteKeyFile()
		if _, err := identity.LoadKey(r.Key); err != nil {
			r.Problem = remoteKeyProblem(err).Error()
		}
		r.DID, err = identity.DIDWeb(o.Remote.Hostname)
		return r, err
	}
	cfg := o.RemotePDS()
	cfg.ReadOnly = true // a server may be running
	a, err := openAccount(cfg, log)
	if err != nil {
		return r, err
	}
	if err := a.Resolve(ctx); err != nil {
		r.Problem = err.Error()
	}
	status := a.Status()
	session := sessionOf(status.Session)
	r.DID, r.Session = status.DID, &session
	return r, nil
}

// remoteKeyProblem names the command that creates a missing key.
func remoteKeyProblem(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("the key does not exist yet; the first start creates it, or `tidings remote init`")
	}
	return err
}

// resolveHold reads the DID document of the hold.
func resolveHold(ctx context.Context, r *config.Remote) remoteHold {
	h := remoteHold{DID: r.Hold}
	endpoint, err := remote.Resolve(ctx, r.Hold, r.Directory())
	if h.Endpoint = endpoint; err != nil {
		h.Problem = err.Error()
	}
	return h
}

func (r remoteReport) print(out io.Writer) error {
	w := cli.NewTable(out)
	row := w.Row
	row("sender", "%s", cmp.Or(r.DID, "not known yet"))
	if r.Key != "" {
		row("key", "%s", r.Key)
	}
	if r.Problem != "" {
		row("problem", "%s", r.Problem)
	}
	if r.Session != nil {
		r.Session.print(row)
	}
	row("hold", "%s", r.Hold.DID)
	if r.Hold.Endpoint != "" {
		row("endpoint", "%s", r.Hold.Endpoint)
	}
	if r.Hold.Problem != "" {
		row("problem", "%s", r.Hold.Problem)
	}
	r.Backlog.Print(row)
	return w.Flush()
}
