package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	"github.com/tidings-dev/tidings/atproto/appview"
	"github.com/tidings-dev/tidings/atproto/auth"
	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/pds"
	"github.com/tidings-dev/tidings/config"
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
		Long: "`config check` reads a registry's configuration file and its environment variables, without opening or changing anything else.\n" +
			"It prints what Tidings will do and warnings, and fails if an option is invalid. The server may be running or stopped.\n" +
			"With --online it also asks the network: whether the DID document agrees, whether the relays know the hold, or whether the account\n" +
			"can log in, which uses the session that is kept. It fails if something is not as the configuration says.",
		Example:      "  tidings config check config.yml\n  tidings config check --online config.yml",
		Args:         cobra.MaximumNArgs(1),
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible()
			defer stop()
			o, err := configCheck(cmd.OutOrStdout(), args)
			if err != nil || o == nil || !online {
				return err
			}
			return checkOnline(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr(), o)
		},
	}
	c.Flags().BoolVar(&online, "online", false, "also ask the network about the account, and log in")
	return c
}

// configCheck returns the options of a valid file, nil if it does not use Tidings.
func configCheck(out io.Writer, args []string) (*config.Options, error) {
	c, path, err := load(args)
	if err != nil {
		return nil, err
	}
	o, found, err := config.FromRegistry(c)
	if err != nil {
		return nil, listErrors(path, err)
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
		return nil, listErrors(path, invalid)
	}
	fmt.Fprintf(out, "%s is valid.\n\n", path)
	explain(out, c, o)
	if len(warnings) > 0 {
		fmt.Fprintln(out)
	}
	for _, w := range warnings {
		fmt.Fprintf(out, "warning: %s\n", w)
	}
	if o.Hold != nil && !exists(o.KeyFile()) {
		fmt.Fprintf(out, "\nThe account does not exist yet. Create it with: tidings hold init %s\n", path)
	}
	return o, nil
}

// explain prints what the options do, one topic a line.
func explain(out io.Writer, c *configuration.Configuration, o *config.Options) {
	w := newTable(out)
	defer w.Flush()
	row := func(topic, format string, args ...any) {
		fmt.Fprintf(w, "  %s\t%s\n", topic, fmt.Sprintf(format, args...))
	}

	row("data", "%s; its journal holds up to %s of pushes and %s of pulls", o.Data, o.Journal.Limit, o.Journal.Limit)
	if len(o.Public) == 0 {
		row("public", "no repository; the API shows nothing without its token")
	} else {
		row("public", "repositories that match %s", oneOf(o.Public))
	}
	switch {
	case o.Account != nil:
		row("records", "one for each layer, in the account %s at %s", o.Account.Identifier, o.Account.Service)
		row("password", "%s", o.Account.PasswordFile)
		row("budget", "%s", budget(o.Account.Budget))
	case o.Remote != nil:
		explainRemote(row, o)
	case o.Hold == nil:
		row("records", "none; pushes and pulls are only counted")
	default:
		account, _ := identity.DIDWeb(o.Hold.Hostname) // the hostname is validated
		if moved := o.Hold.MovedTo; moved != nil {
			row("records", "none; the account %s has moved to %s, as did.json shows", account, moved.Service)
		} else {
			row("records", "one for each layer, in the account %s of this process", account)
		}
		row("key", "%s", o.KeyFile())
		row("relays", "%s", relays(o.Hold.Relays))
		row("notifiers", "%s", notifiers(o.Hold))
		row("login", "%s", map[bool]string{true: "enabled, with the password that `tidings hold password` sets", false: "disabled"}[o.Hold.Login])
	}
	explainReserve(row, o)
	if o.Owner != "" {
		row("owner", "images belong to %s", o.Owner)
	}
	explainOwners(row, o)
	explainAnnounce(row, o)
	switch {
	case o.Hold == nil && o.Account == nil: // nothing is published here
	case o.Stats.Records == 0:
		row("counts", "are not written to the account")
	default:
		row("counts", "of public repositories are written to the account every %s", short(time.Duration(o.Stats.Records)))
	}
	switch {
	case o.Redis == nil:
		row("counters", "on this machine only")
	case o.Redis.Inherit:
		row("counters", "on this machine, and summed in the registry's Redis at %s under the name %q", strings.Join(c.Redis.Options.Addrs, ", "), o.Redis.Name)
	default:
		row("counters", "on this machine, and summed in Redis at %s under the name %q", strings.Join(o.Redis.Addrs, ", "), o.Redis.Name)
	}
	if n := append(o.Count.IgnoreUserAgents, o.Count.IgnoreActors...); len(n) > 0 {
		row("ignored", "requests of %s are counted separately", oneOf(n))
	}
	if o.HTTP.Addr != "" {
		row("http", "the API and the account listen on %s", o.HTTP.Addr)
	} else {
		row("http", "the API and the account share the registry's address, %s", c.HTTP.Addr)
	}
	if o.HTTP.ClientHeader != "" {
		row("clients", "identified by the header %s, set by %s", o.HTTP.ClientHeader, strings.Join(o.HTTP.Proxies, ", "))
	}
	if o.API.TokenFile != "" {
		row("token", "the API shows every repository to requests with the token in %s", o.API.TokenFile)
	}
}

func explainOwners(row func(topic, format string, args ...any), o *config.Options) {
	for _, rule := range o.Owners {
		if rule.FirstComponent != "" {
			row("owner", "images in repositories that begin with a handle belong to the handle")
			continue
		}
		row("owner", "images in repositories that match %s belong to %s", oneOf(rule.Repositories), rule.Owner)
	}
	if o.Actors.Strict {
		row("actors", "only its owner may push to a repository; users with an account: %d", len(o.Actors.Accounts))
	}
}

func explainRemote(row func(topic, format string, args ...any), o *config.Options) {
	r := o.Remote
	row("reports", "each push of a public repository, to the hold %s, which writes the records", r.Hold)
	if r.Private == config.PrivateSend {
		row("", "pushes of other repositories as well, with the visibility private")
	}
	if r.Pulls {
		row("", "pulls of public repositories as well")
	}
	if r.Account != nil {
		row("sender", "the account %s at %s", r.Account.Identifier, r.Account.Service)
		row("password", "%s", r.Account.PasswordFile)
		return
	}
	did, _ := identity.DIDWeb(r.Hostname) // the hostname is validated
	row("sender", "%s", did)
	row("key", "%s", o.RemoteKeyFile())
}

func budget(b config.Budget) string {
	points := func(n config.PointsOrOff, window string) string {
		if n == pds.NoLimit {
			return "any number of points in " + window
		}
		return fmt.Sprintf("%d points in %s", n, window)
	}
	return points(b.Hour, "an hour") + ", " + points(b.Day, "a day")
}

func explainReserve(row func(topic, format string, args ...any), o *config.Options) {
	row("reserve", "counting and publishing pause while less than %s of disk space is free", o.Reserve)
	if o.Hold != nil && o.Hold.Reserve != o.Reserve {
		row("", "the account refuses writes while less than %s is free (hold.reserve)", o.Hold.Reserve)
	}
}

func relays(list []string) string {
	if len(list) == 0 {
		return "none is asked to crawl the account"
	}
	return strings.Join(list, ", ") + " are asked to crawl the account"
}

func notifiers(h *config.Hold) string {
	var who []string
	if len(h.Registries) > 0 {
		who = append(who, strings.Join(h.Registries, ", ")+" for images of any owner")
	}
	if len(h.Owners) > 0 {
		who = append(who, strings.Join(h.Owners, ", ")+" for their own images and pulls of any")
	}
	if auth.Pulls(h.Pulls) == auth.PullsAnyone {
		who = append(who, "any account for pulls of known images")
	}
	if len(who) == 0 {
		return "no other registry"
	}
	return strings.Join(who, "; ")
}

func explainAnnounce(row func(topic, format string, args ...any), o *config.Options) {
	a := o.Announce
	if a == nil && o.Remote != nil {
		row("announced", "by the hold, as it is configured")
		return
	}
	if a == nil {
		row("announced", "nothing")
		return
	}
	tags := announcedTags(a)
	collect := "at once"
	if a.Collect > 0 {
		collect = "the tags of one image within " + short(a.Collect) + " in one post"
	}
	row("announced", "%s, %s; pushes older than %s only in a summary", tags, collect, short(a.MaxAge))
	row("", "%s", postLimits(a))
	if text, err := a.ParseTemplate(); err == nil && text != nil {
		row("text", "%q", text.Sample())
	}
	if a.DryRun {
		row("", "posts are only logged (announce.dry_run)")
	}
	if a.Link != "" {
		row("link", "%s", a.Link)
	}
	if a.Publication != nil {
		row("", "each version with a post is a document of a publication (announce.publication)")
	}
	if a.AnonymousPushes {
		row("", "anonymous pushes are announced (announce.anonymous_pushes)")
	}
	if address := o.AppView(); address != appview.Off {
		row("indexed", "%s is asked whether it has the posts", address)
	} else {
		row("indexed", "no AppView is asked whether it has the posts")
	}
}

// announcedTags says which tags are announced.
func announcedTags(a *config.Announce) string {
	tags := "version tags (v1.2.3, 1.2.3)"
	if len(a.Tags) > 0 {
		tags = "tags that match " + oneOf(a.Tags)
	}
	if len(a.Exclude) > 0 {
		tags += " except " + oneOf(a.Exclude)
	}
	return tags
}

// postLimits says how many posts there are at most.
func postLimits(a *config.Announce) string {
	limits := "no cooldown"
	if a.Cooldown > 0 {
		limits = "a post of a repository every " + short(a.Cooldown)
	}
	if a.DailyLimit > 0 {
		limits += fmt.Sprintf(", %d posts a day", a.DailyLimit)
	} else {
		limits += ", no daily limit"
	}
	if a.DeletesPosts() {
		return limits + "; the post of an image is deleted with it"
	}
	return limits + "; posts are never deleted"
}

// checkFiles reads the files that the options name and that a start needs.
func checkFiles(o *config.Options) error {
	var errs []error
	if o.Redis != nil {
		if _, err := o.Redis.Client(); err != nil {
			errs = append(errs, err)
		}
	}
	if o.Account != nil {
		errs = append(errs, o.Account.CheckPassword())
	}
	if o.Remote != nil {
		errs = append(errs, o.Remote.CheckPassword())
	}
	if o.Announce != nil && o.Announce.Publication != nil {
		_, err := o.Announce.Publication.ReadIcon()
		errs = append(errs, err)
	}
	return errors.Join(append(errs, o.API.CheckToken())...)
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

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func oneOf(list []string) string {
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = fmt.Sprintf("%q", s)
	}
	return strings.Join(quoted, " or ")
}

// short omits the zero units of "1h0m0s".
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
