package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/cmd/tidings/internal/cli"
	"github.com/tidings-dev/tidings/internal/clock"
	"github.com/tidings-dev/tidings/internal/glob"
	"github.com/tidings-dev/tidings/internal/private"
	"github.com/tidings-dev/tidings/internal/registryclient"
	"github.com/tidings-dev/tidings/internal/terminal"
	"github.com/tidings-dev/tidings/middleware"
	"github.com/tidings-dev/tidings/notifier/lastuse"
	"github.com/tidings-dev/tidings/notifier/unused"
)

// unusedFlags are the flags of `tidings unused`.
type unusedFlags struct {
	period                  string
	repositories, keepTags  []string
	keep                    int
	json, remove, yes       bool
	url, user, passwordFile string
}

func unusedCommand() *cobra.Command {
	var flags unusedFlags
	c := &cobra.Command{
		Use:   "unused <config>",
		Short: "`unused` lists the tags and manifests that have not been used for a time, and deletes them",
		Long: "`unused` lists what was neither pushed nor used (pulled, asked for with HEAD, or pulled as part of an index) for a time, and the\n" +
			"bytes that garbage-collect would free without it. It keeps the images of kept indexes, and the signatures and attestations of\n" +
			"kept images. It needs the registry to be running, and reads its storage. With --delete it deletes what it has listed through the\n" +
			"registry's API, after a question, and only what is still unused; garbage-collect then frees the space. See docs/unused.md.",
		Example: "  tidings unused config.yml --for 90d --repository 'team/**' --keep-tags 'v*' --keep 3\n" +
			"  TIDINGS_PASSWORD=… tidings unused config.yml --for 90d --delete --user admin",
		Args:         cobra.MaximumNArgs(1),
		SilenceUsage: true,
		RunE: cli.Run(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			return runUnused(ctx, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr(), args, flags)
		}),
	}
	f := c.Flags()
	f.StringVar(&flags.period, "for", "", "the time without a use, such as 90d, 12w or 36h (required)")
	f.StringSliceVar(&flags.repositories, "repository", nil, "only repositories that match a glob, such as 'team/**'")
	f.StringSliceVar(&flags.keepTags, "keep-tags", nil, "keep tags that match a glob, such as 'v*'")
	f.IntVar(&flags.keep, "keep", 0, "keep this many of the newest tags of each repository")
	f.BoolVar(&flags.json, "json", false, "print JSON")
	f.BoolVar(&flags.remove, "delete", false, "delete what is listed, through the registry's API")
	f.BoolVar(&flags.yes, "yes", false, "with --delete: do not ask")
	f.StringVar(&flags.url, "url", "", "with --delete: the registry's address, such as https://registry.example.com (default: http.addr on this machine)")
	f.StringVar(&flags.user, "user", "", "with --delete: a user who may delete; the password is read from --password-file or TIDINGS_PASSWORD")
	f.StringVar(&flags.passwordFile, "password-file", "", "with --delete: a file with the password")
	return c
}

func runUnused(ctx context.Context, in io.Reader, out, log io.Writer, args []string, flags unusedFlags) error {
	search, err := flags.search()
	if err != nil {
		return err
	}
	admin, err := newAdminClient(args)
	if err != nil {
		return err
	}
	host, _, err := cli.Load(args)
	if err != nil {
		return err
	}
	var client *registryclient.Client
	if flags.remove {
		if client, err = flags.client(in, host); err != nil {
			return err
		}
	}
	if search.Storage, err = middleware.UnusedStorage(host); err != nil {
		return err
	}
	search.Uses = func(ctx context.Context, repository string, after time.Time) (unused.Uses, error) {
		rows, known, err := admin.LastUse(ctx, repository, after)
		return unused.Uses{Known: known, Rows: rows}, admin.explain(err)
	}
	result, err := findUnused(ctx, log, search)
	if err != nil {
		return err
	}
	if err := printUnused(out, log, result, flags); err != nil || !flags.remove {
		return err
	}
	d := unusedDeletion{search, client, flags, admin.options.Redis != nil}
	return d.run(ctx, in, log, result)
}

// search returns the search that the flags ask for, without storage and uses.
func (f *unusedFlags) search() (*unused.Search, error) {
	period, err := parsePeriod(f.period)
	if err != nil {
		return nil, err
	}
	if f.keep < 0 {
		return nil, errors.New("--keep must not be negative")
	}
	if !f.remove && (f.yes || f.url != "" || f.user != "" || f.passwordFile != "") {
		return nil, errors.New("--yes, --url, --user and --password-file are only for --delete")
	}
	s := &unused.Search{Options: unused.Options{Before: clock.Now().Add(-period), Keep: f.keep}}
	s.Repository, err = matcher("--repository", f.repositories, glob.ValidateRepository, glob.MatchRepository)
	if err == nil {
		s.KeepTag, err = matcher("--keep-tags", f.keepTags, glob.ValidateTag, glob.MatchTag)
	}
	return s, err
}

// matcher returns a function that reports whether one of the globs of a flag matches; nil
// without globs.
func matcher(flag string, globs []string, validate func(string) error, match func(glob, name string) bool) (func(string) bool, error) {
	for _, g := range globs {
		if err := validate(g); err != nil {
			return nil, fmt.Errorf("%s: %w", flag, err)
		}
	}
	if len(globs) == 0 {
		return nil, nil
	}
	return func(name string) bool {
		for _, g := range globs {
			if match(g, name) {
				return true
			}
		}
		return false
	}, nil
}

// maxPeriod is the longest period: as long as uses are kept.
const maxPeriod = lastuse.KeepDays * 24 * time.Hour

// parsePeriod parses a number of days, weeks or hours.
func parsePeriod(text string) (time.Duration, error) {
	if text == "" {
		return 0, errors.New("--for is required: the time without a use, such as --for 90d")
	}
	unit := map[byte]time.Duration{'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour}[text[len(text)-1]]
	n, err := strconv.ParseUint(text[:len(text)-1], 10, 32)
	if err != nil || unit == 0 || n == 0 {
		return 0, fmt.Errorf("--for %q is no time; use a number of days, weeks or hours, such as 90d, 12w or 36h", text)
	}
	if time.Duration(n) > maxPeriod/unit {
		return 0, fmt.Errorf("--for %s is too long; uses are kept for %d days", text, lastuse.KeepDays)
	}
	return time.Duration(n) * unit, nil
}

// client returns the client that deletes, after it has checked what can be checked before the
// search.
func (f *unusedFlags) client(in io.Reader, host *configuration.Configuration) (*registryclient.Client, error) {
	if !f.yes && !terminal.Is(in) {
		return nil, errors.New("--delete asks before it deletes, and standard input is no terminal: add --yes to delete without a question")
	}
	if enabled, _ := host.Storage["delete"]["enabled"].(bool); !enabled {
		return nil, registryclient.ErrDisabled
	}
	login, err := f.login()
	if err != nil {
		return nil, err
	}
	if f.url != "" {
		return registryclient.Remote(f.url, login)
	}
	return registryclient.Local(host, login)
}

// passwordVariable has the password of --user.
const passwordVariable = "TIDINGS_PASSWORD"

func (f *unusedFlags) login() (registryclient.Credentials, error) {
	login := registryclient.Credentials{User: f.user, Password: os.Getenv(passwordVariable)}
	switch {
	case f.user == "" && f.passwordFile != "":
		return login, errors.New("--password-file needs --user")
	case f.user == "":
		return registryclient.Credentials{}, nil
	case f.passwordFile != "":
		content, err := private.ReadFile(f.passwordFile)
		if err != nil {
			return login, fmt.Errorf("--password-file: %w", err)
		}
		login.Password = strings.TrimRight(string(content), "\r\n")
	case login.Password == "":
		return login, fmt.Errorf("--user needs a password: name its file with --password-file, or set %s", passwordVariable)
	}
	return login, nil
}

func findUnused(ctx context.Context, log io.Writer, search *unused.Search) (*unused.Result, error) {
	bar := terminal.NewProgress(log, "repositories", 0)
	search.Progress = bar.Set
	result, err := search.Run(ctx)
	bar.End()
	return result, err
}

func printUnused(out, log io.Writer, result *unused.Result, flags unusedFlags) error {
	if result.Since.After(result.Before) {
		fmt.Fprintf(log, "Uses are known since %s only, which is less than %s: what is listed may have been used before.\n", result.Since.Format(time.RFC3339), flags.period)
	}
	if result.Missing != "" {
		fmt.Fprintf(log, "What is listed may have been used, since some uses are not known: %s.\n", result.Missing)
	}
	if flags.json {
		return cli.PrintJSON(out, result)
	}
	w := cli.NewTable(out)
	for i := range result.Items {
		fmt.Fprintln(w, itemLine(&result.Items[i], result.Since))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(result.Items) == 0 {
		fmt.Fprintf(out, "Nothing is unused for %s.\n", flags.period)
		return nil
	}
	fmt.Fprintf(out, "%s unused for %s; without them garbage-collect would free %s (%d bytes).\n",
		itemsText(result.Items), flags.period, cli.Size(result.Bytes), result.Bytes)
	return nil
}

func itemLine(item *unused.Item, since time.Time) string {
	name := item.Repository + "@" + item.Digest
	if item.Tag != "" {
		name = item.Repository + ":" + item.Tag
	}
	at := "not used or pushed since " + since.Format(time.DateOnly)
	switch {
	case !item.Used.IsZero() && !item.Used.Before(item.Pushed):
		at = "used " + item.Used.Format(time.DateOnly)
	case !item.Pushed.IsZero() && !item.Used.IsZero():
		at = "used " + item.Used.Format(time.DateOnly) + ", pushed " + item.Pushed.Format(time.DateOnly)
	case !item.Pushed.IsZero():
		at = "never used, pushed " + item.Pushed.Format(time.DateOnly)
	}
	if item.Tag == "" {
		return name + "\t" + at + "\tno tag"
	}
	if !item.Manifest {
		at += "\tonly the tag; its image is kept"
	}
	return name + "\t" + at
}

func itemsText(items []unused.Item) string {
	tags := int64(0)
	for i := range items {
		if items[i].Tag != "" {
			tags++
		}
	}
	return cli.Count(tags, "tag") + " and " + cli.Count(int64(len(items))-tags, "manifest") + " without a tag are"
}

// errNotDeleted means that the operator has not agreed.
var errNotDeleted = errors.New("nothing was deleted")

// unusedDeletion deletes what a search has found.
type unusedDeletion struct {
	search *unused.Search
	client *registryclient.Client
	flags  unusedFlags
	shared bool // the uses of other registries are known, through Redis
}

func (d *unusedDeletion) run(ctx context.Context, in io.Reader, log io.Writer, result *unused.Result) error {
	if result.Since.After(result.Before) {
		return fmt.Errorf("%w: uses are known since %s, so the earliest time for --for %s is %s", errNotDeleted,
			result.Since.Format(time.RFC3339), d.flags.period, result.Since.Add(clock.Now().Sub(result.Before)).Format(time.RFC3339))
	}
	if result.Missing != "" {
		return fmt.Errorf("%w: some uses are not known: %s", errNotDeleted, result.Missing)
	}
	if len(result.Items) == 0 {
		return nil
	}
	if !d.shared {
		fmt.Fprintln(log, "Without `redis:`, only the uses that this registry has answered are known. If others serve the same storage, run the command on all of them, and delete only what all list.")
	}
	if !d.flags.yes {
		if err := terminal.Confirm(ctx, in, log, "Delete them?"); err != nil {
			return err
		}
	}
	bar := terminal.NewProgress(log, "tags and manifests", int64(len(result.Items)))
	lines := bar.Writer(log)
	d.search.Progress = bar.Set
	deletion := unused.Deletion{
		Search: d.search,
		Remove: func(ctx context.Context, repository, reference string) error {
			err := d.client.Delete(ctx, repository, reference)
			if errors.Is(err, registryclient.ErrNotFound) {
				return unused.ErrRemoved
			}
			return err
		},
		Skipped: func(repository, reference string) {
			fmt.Fprintf(lines, "%s %s was used or changed meanwhile, and is kept.\n", repository, reference)
		},
	}
	deleted, err := deletion.Run(ctx, result.Items)
	bar.End()
	fmt.Fprintf(log, "%s done.\n", cli.Count(int64(deleted), "delete"))
	if ctx.Err() != nil {
		return errors.New("interrupted; run the command again to delete the others")
	}
	if err != nil {
		return fmt.Errorf("%w; run the command again to delete the others", err)
	}
	fmt.Fprintln(log, "Run `tidings garbage-collect` while the registry is stopped or read-only to free the space.")
	return nil
}
