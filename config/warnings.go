package config

import (
	"fmt"
	"slices"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/internal/private"
)

// Warnings describes options that are valid but may not be intended.
func (o *Options) Warnings() []string {
	if !o.Enabled {
		return nil
	}
	out := slices.Clone(o.warnings)
	if (o.Hold != nil || o.Account != nil) && len(o.Public) == 0 {
		out = append(out, "public is empty: pushes and pulls are counted and nothing is published; list the public repositories")
	}
	if o.Remote != nil && len(o.Public) == 0 && o.Remote.Private == PrivateSkip {
		out = append(out, "public is empty: pushes and pulls are counted and nothing is reported to the hold of remote; list the public repositories")
	}
	if o.Remote != nil && o.Remote.local() {
		out = append(out, "remote.hostname is "+o.Remote.Hostname+": this identity is for testing; only a hold on this machine can resolve it")
	}
	if o.Hold != nil && o.Hold.MovedTo != nil && len(o.Public) > 0 {
		out = append(out, "hold.moved_to: the account is at "+o.Hold.MovedTo.Service+": nothing is published from here; events stay pending until the account is back, up to journal.limit; with public empty nothing is pending")
	}
	if o.Announce != nil && o.Announce.DryRun {
		out = append(out, "announce.dry_run: posts are only logged; remove the option to write them")
	}
	if slices.Contains(o.Public, "*") && !slices.Contains(o.Public, "**") {
		out = append(out, `public has "*", which matches only repositories without a slash in their name; "**" matches every repository`)
	}
	if o.Hold != nil && o.Hold.local() {
		out = append(out, "hold.hostname is "+o.Hold.Hostname+": this identity is for testing; nobody else can resolve it, and it cannot be renamed later")
	}
	if o.Hold != nil && !o.Hold.local() {
		if h, err := syntax.ParseHandle(o.Hold.Hostname); err == nil && !h.AllowedTLD() {
			out = append(out, "hold.hostname has a top-level domain that the public network does not allow in handles; it is only usable in a private network: "+o.Hold.Hostname)
		}
	}
	return append(out, o.openSecrets()...)
}

// openSecrets are warnings about secrets that every user of the machine can read.
func (o *Options) openSecrets() []string {
	var out []string
	for option, file := range o.secrets() {
		if file != "" && private.OpenToAll(file) {
			out = append(out, fmt.Sprintf("options.%s: every user of this machine can read %s; unless that is a container of its own, chmod 600 %s", option, file, file))
		}
	}
	slices.Sort(out)
	return out
}

// secrets returns the files that options name as secrets, by option. They may be missing.
func (o *Options) secrets() map[string]string {
	files := map[string]string{"api.token_file": o.API.TokenFile}
	if o.Hold != nil {
		files["hold.key_file"] = o.Hold.KeyFile
	}
	if o.Account != nil {
		files["account.password_file"] = o.Account.PasswordFile
	}
	if o.Remote != nil {
		files["remote.key_file"] = o.Remote.KeyFile
	}
	if o.Remote != nil && o.Remote.Account != nil {
		files["remote.account.password_file"] = o.Remote.Account.PasswordFile
	}
	if o.Redis != nil {
		files["redis.password_file"] = o.Redis.PasswordFile
	}
	return files
}

func (o *Options) warn(text string) { o.warnings = append(o.warnings, text) }

// local reports whether the identity is on localhost.
func (h *Hold) local() bool { return identity.IsLocalhost(h.Hostname) }
