package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	"github.com/tidings-dev/tidings/config"
)

func configCommand() *cobra.Command {
	parent := &cobra.Command{
		Use:   "config",
		Short: "`config` looks at configuration files",
	}
	parent.AddCommand(&cobra.Command{
		Use:   "check <config>",
		Short: "`config check` says in plain words what a configuration does, and what is wrong with it",
		Long: "`config check` reads a registry's configuration with its environment variables, opens nothing and changes nothing.\n" +
			"It says what Tidings will do with it, warns about what may not be meant, and fails if something is wrong.",
		Args:         cobra.MaximumNArgs(1),
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return configCheck(cmd.OutOrStdout(), args)
		},
	})
	return parent
}

func configCheck(out io.Writer, args []string) error {
	c, path, err := load(args)
	if err != nil {
		return err
	}
	o, found, err := config.FromRegistry(c)
	if err != nil {
		return listed(path, err)
	}
	if !found {
		fmt.Fprintf(out, "%s has no entry `name: tidings` under middleware.repository: the registry runs as it does without Tidings.\n", path)
		return nil
	}
	if !o.Enabled {
		fmt.Fprintf(out, "%s switches Tidings off: the registry runs as it does without it.\n", path)
		return nil
	}
	warnings, wrong := o.Warnings(), files(o)
	if text := repeated(path); text != "" {
		warnings = append(warnings, text)
	}
	if wrong != nil {
		return listed(path, wrong)
	}
	fmt.Fprintf(out, "%s is right.\n\n", path)
	explain(out, c, o)
	if len(warnings) > 0 {
		fmt.Fprintln(out)
	}
	for _, w := range warnings {
		fmt.Fprintf(out, "warning: %s\n", w)
	}
	if o.Hold != nil && !exists(o.KeyFile()) {
		fmt.Fprintf(out, "\nThe hold has no key yet. Make it with: tidings hold init %s\n", path)
	}
	return nil
}

// explain says what the options do, one line a thing.
func explain(out io.Writer, c *configuration.Configuration, o *config.Options) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer w.Flush()
	say := func(what, format string, args ...any) {
		fmt.Fprintf(w, "  %s\t%s\n", what, fmt.Sprintf(format, args...))
	}

	say("data", "%s; up to %s of pushes and %s of pulls wait there", o.Data, o.Journal.Limit, o.Journal.Limit)
	if len(o.Public) == 0 {
		say("seen", "no repository; without the API's token nobody sees anything")
	} else {
		say("seen", "repositories that match %s", oneOf(o.Public))
	}
	if o.Hold == nil {
		say("written", "nothing; pushes and pulls are only counted")
	} else {
		account := "did:web:" + strings.ReplaceAll(o.Hold.Hostname, ":", "%3A")
		if moved := o.Hold.MovedTo; moved != nil {
			say("written", "nothing; the account %s has moved to %s, and did.json shows that", account, moved.Service)
		} else {
			say("written", "layer records, to the account %s in this process", account)
		}
		say("key", "%s", o.KeyFile())
		say("relays", "%s", relays(o.Hold.Relays))
		say("told by", "%s", callers(o.Hold))
		say("login", "%s", map[bool]string{true: "with the password of `tidings hold password`", false: "nobody can log in to the account"}[o.Hold.Login])
	}
	sayReserve(say, o)
	if o.Owner != "" {
		say("owner", "images are %s's", o.Owner)
	}
	announced(say, o.Announce)
	switch {
	case o.Redis == nil:
		say("counted", "on this machine only")
	case o.Redis.Inherit:
		say("counted", "here, and summed in the registry's Redis at %s under the name %q", strings.Join(c.Redis.Options.Addrs, ", "), o.Redis.Name)
	default:
		say("counted", "here, and summed in Redis at %s under the name %q", strings.Join(o.Redis.Addrs, ", "), o.Redis.Name)
	}
	if n := append(o.Count.IgnoreUserAgents, o.Count.IgnoreActors...); len(n) > 0 {
		say("ignored", "requests of %s are counted apart", oneOf(n))
	}
	if o.HTTP.Addr != "" {
		say("served", "the API and the account on %s", o.HTTP.Addr)
	} else {
		say("served", "the API and the account on the registry's port, %s", c.HTTP.Addr)
	}
	if o.HTTP.ClientHeader != "" {
		say("clients", "told apart by the header %s of %s", o.HTTP.ClientHeader, strings.Join(o.HTTP.Proxies, ", "))
	}
	if o.API.TokenFile != "" {
		say("token", "who has the token in %s sees every repository in the API", o.API.TokenFile)
	}
}

func sayReserve(say func(what, format string, args ...any), o *config.Options) {
	say("reserve", "counting and publishing wait while less than %s of disk space is free", o.Reserve)
	if o.Hold != nil && o.Hold.Reserve != o.Reserve {
		say("", "the account takes no writes while less than %s is free (hold.reserve)", o.Hold.Reserve)
	}
}

func relays(list []string) string {
	if len(list) == 0 {
		return "nobody is asked to read the account"
	}
	return strings.Join(list, ", ") + " asked to read the account and pass it on"
}

func callers(h *config.Hold) string {
	var who []string
	if len(h.Registries) > 0 {
		who = append(who, strings.Join(h.Registries, ", ")+" of any owner's images")
	}
	if len(h.Owners) > 0 {
		who = append(who, strings.Join(h.Owners, ", ")+" of their own")
	}
	if len(who) == 0 {
		return "no other registry"
	}
	return strings.Join(who, "; ")
}

func announced(say func(what, format string, args ...any), a *config.Announce) {
	if a == nil {
		say("announced", "nothing")
		return
	}
	tags := "version tags (v1.2.3, 1.2.3)"
	if len(a.Tags) > 0 {
		tags = "tags that match " + oneOf(a.Tags)
	}
	collect := "at once"
	if a.Collect > 0 {
		collect = "the tags of one image within " + short(a.Collect) + " in one post"
	}
	say("announced", "%s, %s; not pushes older than %s", tags, collect, short(a.MaxAge))
	if a.Link != "" {
		say("link", "%s", a.Link)
	}
	if a.AnonymousPushes {
		say("", "anyone who can push can make the account post (announce.anonymous_pushes)")
	}
}

// files looks at what the options name and a start would miss.
func files(o *config.Options) error {
	var wrong []error
	if o.Redis != nil {
		if _, err := o.Redis.Client(); err != nil {
			wrong = append(wrong, err)
		}
	}
	return errors.Join(append(wrong, o.API.CheckToken())...)
}

// repeated finds what the registry's parser does not mind: a key that stands
// twice, of which it takes the last.
func repeated(path string) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	var wrong *yaml.TypeError
	if err := yaml.Unmarshal(raw, new(map[string]any)); errors.As(err, &wrong) {
		return "a key stands twice, and the registry takes the last: " + strings.Join(wrong.Errors, "; ")
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

// short leaves out the zeroes of "1h0m0s".
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
