package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/internal/terminal"
	"github.com/tidings-dev/tidings/middleware/admin"
)

// adminClient calls the process that has the data folder of a configuration open.
type adminClient struct {
	*admin.Client
	options *config.Options
	path    string    // of the configuration
	log     io.Writer // for remarks; nil: none
}

func newAdminClient(args []string) (*adminClient, error) {
	o, path, err := cli.Options(args)
	if err != nil {
		return nil, err
	}
	if !o.Enabled {
		return nil, fmt.Errorf("%s disables Tidings", path)
	}
	return &adminClient{Client: admin.NewClient(o.Data), options: o, path: path}, nil
}

// call sends a request.
func (c *adminClient) call(ctx context.Context, method, path string, query url.Values, v any) error {
	err := c.Call(ctx, method, path, query, v)
	switch {
	case err != nil && ctx.Err() != nil && method == "GET":
		return ctx.Err()
	case err != nil && ctx.Err() != nil:
		return errInterrupted
	}
	return c.explain(err)
}

// errInterrupted is returned if a signal ends a command during a request that changes something.
var errInterrupted = errors.New("interrupted; the server may still handle the last request")

// explain says in an error how to start a process that is not running.
func (c *adminClient) explain(err error) error {
	if !errors.Is(err, admin.ErrNotRunning) {
		return err
	}
	running, failed := cli.IsRunning(c.options)
	if failed != nil {
		return failed
	}
	if running {
		return cli.NoSocket(c.options)
	}
	return fmt.Errorf("%w, and this command needs it: start it with `tidings serve %s`", admin.ErrNotRunning, c.path)
}

// callSlowly is call for a request that may wait for a sink.
func (c *adminClient) callSlowly(ctx context.Context, method, path string, query url.Values, v any) error {
	bar := terminal.Wait(c.log, "waiting until the sink has finished its batch, at most 20s")
	defer bar.End()
	return c.call(ctx, method, path, query, v)
}

// withAdmin returns the RunE of a command that calls the running process. The first argument
// is the configuration.
func withAdmin(run func(ctx context.Context, c *adminClient, out io.Writer, args []string) error) func(*cobra.Command, []string) error {
	return cli.Run(func(ctx context.Context, cmd *cobra.Command, args []string) error {
		c, err := newAdminClient(args[:min(1, len(args))])
		if err != nil {
			return err
		}
		c.log = cmd.ErrOrStderr()
		return run(ctx, c, cmd.OutOrStdout(), args)
	})
}

// jsonFlag adds the flag --json to a command.
func jsonFlag(c *cobra.Command, asJSON *bool) {
	c.Flags().BoolVar(asJSON, "json", false, "print JSON")
}
