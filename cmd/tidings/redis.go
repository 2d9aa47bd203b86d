package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/internal/clock"
	"github.com/tidings-dev/tidings/internal/terminal"
	"github.com/tidings-dev/tidings/middleware"
	"github.com/tidings-dev/tidings/notifier/rediscounts"
)

func redisCommand() *cobra.Command {
	parent := &cobra.Command{
		Use:   "redis",
		Short: "`redis` manages the counters of registries in Redis",
	}
	parent.AddCommand(redisListCommand(), redisForgetCommand())
	return parent
}

func redisListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list <config>",
		Short: "`redis list` lists the registries that count in Redis",
		Long: "`redis list` lists the ids of the registries of this installation with their hosts, the time when they were last seen, and their\n" +
			"counts. A registry whose data folder was restored or copied also has an older id. The registries may be running\n" +
			"or stopped.",
		Example:      "  tidings redis list config.yml",
		Args:         cobra.MaximumNArgs(1),
		SilenceUsage: true,
		RunE: cli.Run(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			return redisList(ctx, cmd.OutOrStdout(), args)
		}),
	}
}

type forgetFlags struct{ keep, usesSent bool }

func redisForgetCommand() *cobra.Command {
	var flags forgetFlags
	c := &cobra.Command{
		Use:   "forget <config> <id>",
		Short: "`redis forget` removes the counts of a registry that no longer exists",
		Long: "`redis forget` removes the counts of a registry from the sums, by the id that `redis list` shows. With --keep its counts stay.\n" +
			"The registry must be stopped: unless it was shut down cleanly, the command watches it for 15 seconds. If it is started again,\n" +
			"it counts under a new id.\n\n" +
			"A registry that was not shut down can have last uses that it has not sent: `unused` then knows uses from now on only. With\n" +
			"--uses-sent it knows them as before; the registry must have answered nothing since it sent its last uses.",
		Example:      "  tidings redis forget config.yml 3f2a91c04b7d --keep",
		Args:         cobra.ExactArgs(2),
		SilenceUsage: true,
		RunE: cli.Run(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			return redisForget(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr(), args[:1], args[1], flags)
		}),
	}
	c.Flags().BoolVar(&flags.keep, "keep", false, "keep its counts in the sums")
	c.Flags().BoolVar(&flags.usesSent, "uses-sent", false, "it has answered no requests since it sent its last uses")
	return c
}

// openRedis connects to the Redis of a configuration.
func openRedis(args []string) (client redis.UniversalClient, o *config.Options, path string, err error) {
	o, path, err = cli.Options(args)
	if err != nil {
		return nil, nil, path, err
	}
	if o.Redis == nil {
		return nil, nil, path, fmt.Errorf("%s has no redis section; its counters are on this machine only", path)
	}
	universal, err := o.Redis.Client()
	if err != nil {
		return nil, nil, path, err
	}
	universal.ContextTimeoutEnabled = true
	middleware.LogRedis(slog.New(slog.DiscardHandler)) // the command prints the error
	return redis.NewUniversalClient(universal), o, path, nil
}

// redisTimeout bounds the calls of a command, not counting redisWatch.
const redisTimeout = time.Minute

func redisList(ctx context.Context, out io.Writer, args []string) (err error) {
	client, o, _, err := openRedis(args)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	list, err := rediscounts.New(client, o.Redis.Name).List(ctx)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		fmt.Fprintf(out, "Redis has no registry under the name %q.\n", o.Redis.Name)
		return nil
	}
	w := cli.NewTable(out)
	fmt.Fprintln(w, "ID\tHOST\tSEEN\tREPOSITORIES\tPULLS\tPUSHES\t")
	for _, k := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%s\n", k.ID, k.Host, k.Seen.Format(time.RFC3339), k.Repositories, k.Pulls, k.Pushes, forgottenText(k))
	}
	return w.Flush()
}

func forgottenText(k rediscounts.Registry) string {
	switch {
	case k.Removed:
		return "forgotten"
	case k.Kept:
		return "forgotten, counts kept"
	}
	return ""
}

// redisWatch is longer than the interval at which a running registry updates its entry.
const redisWatch = 15 * time.Second

func redisForget(ctx context.Context, out, log io.Writer, args []string, id string, flags forgetFlags) (err error) {
	client, o, path, err := openRedis(args)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	ctx, cancel := context.WithTimeout(ctx, redisTimeout+redisWatch)
	defer cancel()
	db := rediscounts.New(client, o.Redis.Name)
	now := clock.Now()
	if flags.usesSent {
		now = time.Time{}
	}
	bar := terminal.Wait(log, fmt.Sprintf("watching for %s whether the registry runs", redisWatch))
	k, err := db.Forget(ctx, id, flags.keep, redisWatch, now)
	bar.End()
	switch {
	case errors.Is(err, rediscounts.ErrUnknownID):
		return fmt.Errorf("%w: %s; `tidings redis list %s` lists the known ids", err, id, path)
	case errors.Is(err, rediscounts.ErrRunning):
		return fmt.Errorf("%w, on %s: stop it first", err, k.Host)
	case err != nil:
		return err
	}
	done := "are removed from the sums"
	if flags.keep {
		done = "are kept in the sums"
	}
	fmt.Fprintf(out, "Forgot %s of %s; %d pulls and %d pushes in %s %s.\n", id, k.Host, k.Pulls, k.Pushes, cli.Count(int64(k.Repositories), "repository"), done)
	switch {
	case k.LostUses && k.UsesUpTo.IsZero():
		fmt.Fprintln(out, "It had sent no last uses; for `tidings unused`, uses are known from now on only.")
	case k.LostUses:
		fmt.Fprintf(out, "It had sent its last uses up to %s; for `tidings unused`, uses are known from now on only.\n", k.UsesUpTo.UTC().Format(time.RFC3339))
	}
	return nil
}
