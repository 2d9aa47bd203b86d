package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/config"
	"github.com/tidings-dev/tidings/notifier/counter"
)

func redisCommand() *cobra.Command {
	parent := &cobra.Command{
		Use:   "redis",
		Short: "`redis` looks after the counters that registries sum in Redis",
	}
	parent.AddCommand(redisListCommand(), redisForgetCommand())
	return parent
}

func redisListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list <config>",
		Short: "`redis list` shows which registries count in Redis",
		Long: "`redis list` shows the ids under which registries of this installation count in Redis, with their hosts, when they were seen\n" +
			"last, and what they counted. A registry whose data folder was set back or copied has an older id too.",
		Args:         cobra.MaximumNArgs(1),
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible()
			defer stop()
			return redisList(ctx, cmd.OutOrStdout(), args)
		},
	}
}

func redisForgetCommand() *cobra.Command {
	var keep bool
	c := &cobra.Command{
		Use:   "forget <config> <id>",
		Short: "`redis forget` ends a registry that is gone",
		Long: "`redis forget` removes from the sums what a registry counted that is gone, by the id that `redis list` shows. With --keep its\n" +
			"numbers stay. The registry must not run; it is watched for a quarter of a minute unless it ended in order. Should it come back,\n" +
			"it counts under a new id.",
		Args:         cobra.ExactArgs(2),
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible()
			defer stop()
			return redisForget(ctx, cmd.OutOrStdout(), args[:1], args[1], keep)
		},
	}
	c.Flags().BoolVar(&keep, "keep", false, "let its numbers count on")
	return c
}

// redisOf connects to the Redis that a configuration names.
func redisOf(args []string) (client redis.UniversalClient, o *config.Options, path string, err error) {
	o, path, err = options(args)
	if err != nil {
		return nil, nil, path, err
	}
	if o.Redis == nil {
		return nil, nil, path, fmt.Errorf("%s has no Redis; its counters are on this machine only", path)
	}
	universal, err := o.Redis.Client()
	if err != nil {
		return nil, nil, path, err
	}
	universal.ContextTimeoutEnabled = true
	return redis.NewUniversalClient(universal), o, path, nil
}

// redisTime bounds what a command asks of Redis, but for the watching.
const redisTime = time.Minute

func redisList(ctx context.Context, out io.Writer, args []string) (err error) {
	client, o, _, err := redisOf(args)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	ctx, cancel := context.WithTimeout(ctx, redisTime)
	defer cancel()
	list, err := counter.List(ctx, client, o.Redis.Name)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		fmt.Fprintf(out, "No registry has counted in Redis under the name %q.\n", o.Redis.Name)
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tHOST\tSEEN\tREPOSITORIES\tPULLS\tPUSHES\t")
	for _, k := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%s\n", k.ID, k.Host, k.Seen.Format(time.RFC3339), k.Repositories, k.Pulls, k.Pushes, forgotten(k))
	}
	return w.Flush()
}

func forgotten(k counter.RegistryInfo) string {
	switch {
	case k.Removed:
		return "forgotten"
	case k.Kept:
		return "forgotten, its numbers are kept"
	}
	return ""
}

// redisWatch is longer than a registry that runs leaves its record as it is.
const redisWatch = 15 * time.Second

func redisForget(ctx context.Context, out io.Writer, args []string, id string, keep bool) (err error) {
	client, o, path, err := redisOf(args)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	ctx, cancel := context.WithTimeout(ctx, redisTime+redisWatch)
	defer cancel()
	k, err := counter.Forget(ctx, client, o.Redis.Name, id, keep, redisWatch)
	switch {
	case errors.Is(err, counter.ErrUnknownID):
		return fmt.Errorf("%w: %s; `tidings redis list %s` shows those it knows", err, id, path)
	case errors.Is(err, counter.ErrRunning):
		return fmt.Errorf("%w, on %s: stop it first", err, k.Host)
	case err != nil:
		return err
	}
	done := "are removed from the sums"
	if keep {
		done = "are kept in the sums"
	}
	fmt.Fprintf(out, "%s of %s is forgotten; %d pulls and %d pushes in %s %s.\n", id, k.Host, k.Pulls, k.Pushes, repositoriesText(k.Repositories), done)
	return nil
}

func repositoriesText(n int) string {
	if n == 1 {
		return "1 repository"
	}
	return fmt.Sprintf("%d repositories", n)
}
