package config

import (
	"fmt"
	"strings"

	"github.com/distribution/distribution/v3/configuration"

	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/notifier/owners"
)

// OwnerRule names the owner of repositories. It has either Repositories and Owner, or
// FirstComponent.
type OwnerRule struct {
	// Repositories lists globs of the repositories, as in Options.Public.
	Repositories []string `option:"repositories"`

	// Owner is the DID or the handle of their owner, "alice.example.com".
	Owner string `option:"owner"`

	// FirstComponent "handle" is the rule that the first path component of a
	// repository is the handle of its owner, as in alice.example.com/app. It needs
	// Actors.Strict, since anybody could publish in another's name otherwise. It does
	// not match a repository whose first component can't be a handle.
	FirstComponent string `option:"first_component"`
}

// firstHandle is the value of FirstComponent.
const firstHandle = "handle"

// Actors are the users of the registry and the accounts that they have.
type Actors struct {
	// Strict refuses pushes to a repository by anybody but its owner, and all
	// anonymous pushes: 403 DENIED, before anything is stored. While an owner's handle
	// is not resolved, pushes to the owner's repositories are answered 503. Default
	// false.
	Strict bool `option:"strict"`

	// Accounts are the DIDs of users.
	Accounts []Actor `option:"accounts"`
}

// Actor is a user of the registry with an account.
type Actor struct {
	User string `option:"user"` // the name that the registry authenticates, exactly
	DID  string `option:"did"`
}

// maxActors limits the list of accounts.
const maxActors = 10_000

// OwnerRules returns the rules of Owners, without their default.
func (o *Options) OwnerRules() []owners.Rule {
	rules := make([]owners.Rule, len(o.Owners))
	for i, r := range o.Owners {
		rules[i] = owners.Rule{Repositories: r.Repositories, FirstComponent: r.FirstComponent != ""}
		if r.Owner != "" {
			rules[i].Owner = owners.Parse(r.Owner)
		}
	}
	return rules
}

// AccountsOf returns the DIDs of users by name.
func (a *Actors) AccountsOf() map[string]string {
	all := make(map[string]string, len(a.Accounts))
	for _, actor := range a.Accounts {
		all[actor.User] = actor.DID
	}
	return all
}

func (o *Options) checkOwners(m *mistakes) {
	globs := 0
	for i := range o.Owners {
		globs += len(o.Owners[i].Repositories)
		if path := fmt.Sprintf("options.owners[%d]", i); !m.at[path] {
			o.Owners[i].check(m, path)
		}
		if o.Owners[i].FirstComponent != "" && !o.Actors.Strict {
			m.add(fmt.Sprintf("options.owners[%d].first_component", i),
				"needs actors.strict: true; without it every user could push images in the name of any handle")
		}
	}
	if len(o.Owners) > owners.MaxRules || globs > owners.MaxGlobs {
		m.add("options.owners", fmt.Sprintf("has %d rules with %d patterns; at most %d rules and %d patterns are allowed", len(o.Owners), globs, owners.MaxRules, owners.MaxGlobs))
	}
	o.Actors.check(m)
	if o.Actors.Strict && o.Owner == "" && o.Hold == nil && o.Account == nil && o.Enabled {
		m.add("options.actors.strict", "there is no owner of repositories without a rule; set owner, hold or account")
	}
}

func (r *OwnerRule) check(m *mistakes, path string) {
	if r.FirstComponent != "" {
		if r.FirstComponent != firstHandle {
			m.add(path+".first_component", fmt.Sprintf("%q is invalid; the only value is handle", r.FirstComponent))
		}
		if len(r.Repositories) > 0 || r.Owner != "" {
			m.add(path, "has first_component, which names the owner of all repositories that begin with a handle; remove repositories and owner, or make them a rule of their own")
		}
		return
	}
	if len(r.Repositories) == 0 {
		m.add(path+".repositories", `required; list patterns such as "alice/**"`)
	}
	each(m, path+".repositories", r.Repositories, owners.ValidateGlob)
	m.check(path+".owner", owners.Validate(r.Owner))
}

func (a *Actors) check(m *mistakes) {
	if len(a.Accounts) > maxActors {
		m.add("options.actors.accounts", fmt.Sprintf("has %d users; at most %d are allowed", len(a.Accounts), maxActors))
	}
	seen := map[string]bool{}
	for i, actor := range a.Accounts {
		path := fmt.Sprintf("options.actors.accounts[%d]", i)
		switch {
		case strings.TrimSpace(actor.User) == "":
			m.add(path+".user", "required; use the name that the user logs in to the registry with")
		case seen[actor.User]:
			m.add(path+".user", fmt.Sprintf("%q is listed twice; a user has one account", actor.User))
		}
		seen[actor.User] = true
		m.check(path+".did", identity.CheckAccount(actor.DID))
	}
}

// checkActors checks the actors against the registry's configuration.
func (o *Options) checkActors(c *configuration.Configuration, m *mistakes) {
	if o.Actors.Strict && c.Proxy.RemoteURL == "" && (c.Auth.Type() == "" || c.Auth.Type() == "silly") {
		m.add("options.actors.strict", "the registry has no auth, so no user is known and every push would be refused; add auth or remove strict")
	}
	if len(o.Actors.Accounts) > 0 && !o.Actors.Strict {
		o.warn("actors.accounts has no effect without actors.strict: true")
	}
}
