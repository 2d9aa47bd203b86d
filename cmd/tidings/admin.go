package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"

	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/middleware/admin"
)

// adminClient calls the process that has the data folder of a configuration open.
type adminClient struct {
	*admin.Client
	options *config.Options
	path    string // of the configuration
}

func newAdminClient(args []string) (*adminClient, error) {
	o, path, err := options(args)
	if err != nil {
		return nil, err
	}
	if !o.Enabled {
		return nil, fmt.Errorf("%s disables Tidings", path)
	}
	return &adminClient{admin.NewClient(o.Data), o, path}, nil
}

// call sends a request. The error says how to start a process that is not running.
func (c *adminClient) call(ctx context.Context, method, path string, query url.Values, v any) error {
	err := c.Call(ctx, method, path, query, v)
	if !errors.Is(err, admin.ErrNotRunning) {
		return err
	}
	running, failed := isRunning(c.options)
	if failed != nil {
		return failed
	}
	if running {
		return fmt.Errorf("a process uses the data folder %s and has no admin socket: it is `tidings hold serve` for an account that nobody notifies, "+
			"another command, or an older version; the registry logs why a socket can't be created", c.options.Data)
	}
	return fmt.Errorf("%w, and this command needs it: start it with `tidings serve %s`", admin.ErrNotRunning, c.path)
}

func printJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// printLine prints v as one line of JSON.
func printLine(out io.Writer, v any) error { return json.NewEncoder(out).Encode(v) }
