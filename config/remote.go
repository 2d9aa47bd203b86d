package config

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/distribution/distribution/v3/configuration"

	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/pds"
	"github.com/tidings-dev/tidings/internal/private"
)

// Remote is another hold that each push is reported to, with one call of
// io.atcr.hold.notifyManifest. That hold writes the records, announces and publishes
// counts.
type Remote struct {
	// Hold is the DID of the hold. Required.
	Hold string `option:"hold"`

	// Hostname is the identity that the calls are signed with: did:web:<hostname>,
	// whose DID document the registry serves. A domain without scheme or path that
	// serves https on port 443, or localhost with a port for testing. Either Hostname or
	// Account is required.
	Hostname string `option:"hostname"`

	// KeyFile is the file of the key of Hostname, which `tidings remote init` creates.
	// Default: remote.key in the data folder.
	KeyFile string `option:"key_file"`

	// Account is an account on a PDS that issues the tokens of the calls, instead of
	// Hostname.
	Account *RemoteAccount `option:"account"`

	// PLC is the URL of the directory that the hold's did:plc is resolved at. Default:
	// account.plc, else the public one.
	PLC string `option:"plc"`

	// Pulls reports pulls of public repositories as well. Default false.
	Pulls bool `option:"pulls"`

	// Private is what happens to pushes of repositories that are not public: skip does not
	// report them, send reports them with the visibility private. Default skip.
	Private string `option:"private"`
}

// RemoteAccount is an account on a PDS that issues service tokens.
type RemoteAccount struct {
	// Service is the URL of the PDS, "https://pds.example.com", or Bluesky's,
	// "https://bsky.social". Required.
	Service string `option:"service"`

	// Identifier is the handle or the DID of the account. Required.
	Identifier string `option:"identifier"`

	// PasswordFile is the file of an app password of the account, which no other
	// user may be able to change. Required.
	PasswordFile string `option:"password_file"`

	// PLC is the URL of the directory that did:plc is resolved at. Default: the public
	// one.
	PLC string `option:"plc"`
}

// Values of Remote.Private.
const (
	PrivateSkip = "skip"
	PrivateSend = "send"
)

func (r *Remote) defaults() { r.Private = PrivateSkip }

func (r *Remote) check(m *mistakes) {
	if r.Hold == "" {
		m.add("options.remote.hold", `required; use the DID of the hold, such as "did:web:hold.example.com"`)
	} else {
		m.check("options.remote.hold", identity.CheckAccount(r.Hold))
	}
	switch {
	case r.Account != nil && r.Hostname != "":
		m.add("options.remote", "has hostname and account; the calls have one sender, so remove one of them")
	case r.Account != nil:
		r.Account.check(m)
		if r.KeyFile != "" {
			m.add("options.remote.key_file", "belongs to hostname; the PDS has the key of the account, so remove it")
		}
	case r.Hostname == "" && !m.at["options.remote.account"]:
		m.add("options.remote.hostname", "required, or account; use the domain of this registry, such as registry.example.com")
	case r.Hostname != "":
		m.check("options.remote.hostname", identity.CheckHostname(r.Hostname))
		if did, err := identity.DIDWeb(r.Hostname); err == nil && did == r.Hold {
			m.add("options.remote.hold", "is this registry itself; use the hold section for an account embedded in the registry")
		}
	}
	checkDirectory(m, "options.remote.plc", r.PLC)
	if r.Private != PrivateSkip && r.Private != PrivateSend {
		m.add("options.remote.private", fmt.Sprintf("is %q, but must be skip or send", r.Private))
	}
}

func (a *RemoteAccount) check(m *mistakes) {
	m.check("options.remote.account.service", pds.CheckService(a.Service))
	m.check("options.remote.account.identifier", pds.CheckIdentifier(a.Identifier))
	if a.PasswordFile == "" {
		m.add("options.remote.account.password_file", "required; write an app password of the account to a file with mode 0600")
	}
	checkDirectory(m, "options.remote.account.plc", a.PLC)
}

// checkRemote checks the other options against a hold that does the publishing.
func (o *Options) checkRemote(m *mistakes, given map[string]any) {
	if o.Remote == nil {
		return
	}
	if o.Announce != nil && o.Enabled {
		m.add("options.announce", "the hold of remote announces images, by its own configuration; remove announce")
	}
	for i, rule := range o.Owners {
		if rule.FirstComponent != "" || rule.Owner != "" && !strings.HasPrefix(rule.Owner, "did:") {
			m.add(fmt.Sprintf("options.owners[%d]", i), "names a handle, but with remote an owner has to be a DID, since the calls of pushes have it")
		}
	}
	if _, ok := given["stats"]; ok && o.Stats.Records != 0 {
		o.warn("stats.records is without effect: the hold of remote publishes counts, by its own configuration")
	}
}

// warnRemote warns of options of the registry that keep calls from being sent or accepted.
func (o *Options) warnRemote(c *configuration.Configuration) {
	r := o.Remote
	if r == nil {
		return
	}
	if c.Proxy.RemoteURL != "" && !r.Pulls {
		o.warn("the registry is a pull-through cache (proxy.remoteurl): it accepts no pushes, so nothing is reported to the hold of remote without remote.pulls")
	}
	if encrypt := c.HTTP.TLS.LetsEncrypt; encrypt.CacheFile != "" && r.Hostname != "" && !slices.Contains(encrypt.Hosts, r.Hostname) {
		o.warn(fmt.Sprintf("http.tls.letsencrypt.hosts does not include %s, the hostname of remote; the hold cannot resolve it unless a proxy serves it", r.Hostname))
	}
}

// Directory is the URL of the directory that did:plc is resolved at; "": the public one.
func (r *Remote) Directory() string {
	if r.Account != nil {
		return cmp.Or(r.PLC, r.Account.PLC)
	}
	return r.PLC
}

// local reports whether the identity is on localhost.
func (r *Remote) local() bool { return r.Hostname != "" && identity.IsLocalhost(r.Hostname) }

// CheckPassword returns an error if there is a password file and it cannot be used.
func (r *Remote) CheckPassword() error {
	if r.Account == nil {
		return nil
	}
	if _, err := private.ReadFile(r.Account.PasswordFile); err != nil {
		return fmt.Errorf("options.remote.account.password_file: %w", err)
	}
	return nil
}

// RemoteKeyFile returns the path of the key of remote.hostname: remote.key_file, or
// remote.key in the data folder.
func (o *Options) RemoteKeyFile() string {
	if o.Remote != nil && o.Remote.KeyFile != "" {
		return o.Remote.KeyFile
	}
	return filepath.Join(o.Data, RemoteKey)
}

// RemotePDS returns the configuration of the client of remote.account, which the caller
// completes.
func (o *Options) RemotePDS() pds.Config {
	a := o.Remote.Account
	return pds.Config{Service: a.Service, Identifier: a.Identifier, PasswordFile: a.PasswordFile, PLC: a.PLC, File: o.AccountFile()}
}
