// Package explain says in words what a configuration does, for commands.
package explain

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/distribution/distribution/v3/configuration"

	"github.com/tidings-dev/tidings/atproto/appview"
	"github.com/tidings-dev/tidings/atproto/auth"
	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/pds"
	"github.com/tidings-dev/tidings/config"
)

// Options calls row for each topic, in the order in which they are shown, with what the
// options of a valid configuration do. A topic of "" continues the one before.
func Options(row func(topic, format string, args ...any), c *configuration.Configuration, o *config.Options) {
	row("data", "%s; its journal holds up to %s of pushes and %s of pulls", o.Data, o.Journal.Limit, o.Journal.Limit)
	if len(o.Public) == 0 {
		row("public", "no repository; the API shows nothing without its token")
	} else {
		row("public", "repositories that match %s", OneOf(o.Public))
	}
	switch {
	case o.Account != nil:
		row("records", "one for each layer, in the account %s at %s", o.Account.Identifier, o.Account.Service)
		row("password", "%s", o.Account.PasswordFile)
		row("budget", "%s", budget(o.Account.Budget))
	case o.Remote != nil:
		remote(row, o)
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
		if o.Hold.Login {
			row("login", "enabled, with the password that `tidings hold password` sets")
		} else {
			row("login", "disabled")
		}
	}
	reserve(row, o)
	if o.Owner != "" {
		row("owner", "images belong to %s", o.Owner)
	}
	owners(row, o)
	quota(row, o.Quota)
	announce(row, o)
	switch {
	case o.Hold == nil && o.Account == nil: // nothing is published here
	case o.Stats.Records == 0:
		row("counts", "are not written to the account")
	default:
		row("counts", "of public repositories are written to the account every %s", Duration(time.Duration(o.Stats.Records)))
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
		row("ignored", "requests of %s are counted separately", OneOf(n))
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

func owners(row func(topic, format string, args ...any), o *config.Options) {
	for _, rule := range o.Owners {
		if rule.FirstComponent != "" {
			row("owner", "images in repositories that begin with a handle belong to the handle")
			continue
		}
		row("owner", "images in repositories that match %s belong to %s", OneOf(rule.Repositories), rule.Owner)
	}
	if o.Actors.Strict {
		row("actors", "only its owner may push to a repository; users with an account: %d", len(o.Actors.Accounts))
	}
}

func quota(row func(topic, format string, args ...any), q *config.Quota) {
	if q == nil {
		return
	}
	byLimit := func(a, b string) int {
		return cmp.Or(cmp.Compare(q.Tiers[a].Limit, q.Tiers[b].Limit), strings.Compare(a, b))
	}
	var tiers []string
	for _, name := range slices.SortedFunc(maps.Keys(q.Tiers), byLimit) {
		tier := fmt.Sprintf("%s %s", name, q.Tiers[name].Limit)
		if name == q.Default {
			tier += " (default)"
		}
		tiers = append(tiers, tier)
	}
	row("quota", "%s; owners with a tier of their own: %d", strings.Join(tiers, ", "), len(q.Owners))
	if q.Default == "" {
		row("", "other owners have no limit")
	}
}

func remote(row func(topic, format string, args ...any), o *config.Options) {
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

func reserve(row func(topic, format string, args ...any), o *config.Options) {
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

func announce(row func(topic, format string, args ...any), o *config.Options) {
	a := o.Announce
	if a == nil && o.Remote != nil {
		row("announced", "by the hold, as it is configured")
		return
	}
	if a == nil {
		row("announced", "nothing")
		return
	}
	tags := Tags(a)
	collect := "at once"
	if a.Collect > 0 {
		collect = "the tags of one image within " + Duration(a.Collect) + " in one post"
	}
	row("announced", "%s, %s; pushes older than %s only in a summary", tags, collect, Duration(a.MaxAge))
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

// Tags says which tags are announced.
func Tags(a *config.Announce) string {
	tags := "version tags (v1.2.3, 1.2.3)"
	if len(a.Tags) > 0 {
		tags = "tags that match " + OneOf(a.Tags)
	}
	if len(a.Exclude) > 0 {
		tags += " except " + OneOf(a.Exclude)
	}
	return tags
}

// postLimits says how many posts there are at most.
func postLimits(a *config.Announce) string {
	limits := "no cooldown"
	if a.Cooldown > 0 {
		limits = "a post of a repository every " + Duration(a.Cooldown)
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

// OneOf quotes the items of a list of alternatives.
func OneOf(list []string) string {
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = fmt.Sprintf("%q", s)
	}
	return strings.Join(quoted, " or ")
}

// Duration formats a duration for people. It omits the zero units of "1h0m0s".
func Duration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
