package config

import (
	"fmt"
	"net/url"
	"path/filepath"

	"github.com/distribution/distribution/v3/configuration"

	"github.com/tidings-dev/tidings/atproto/guard"
	"github.com/tidings-dev/tidings/atproto/pds"
	"github.com/tidings-dev/tidings/internal/private"
)

// Account is an account on another PDS, such as Bluesky's, that records and posts are
// written to.
type Account struct {
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

	// Budget limits the points that writes cost: 3 for a create, 2 for an update, 1
	// for a delete.
	Budget Budget `option:"budget"`
}

// Budget limits the points that are spent by hour and day. The defaults are the
// limits of Bluesky and of the reference PDS; off is for a PDS without limits.
type Budget struct {
	Hour PointsOrOff `option:"hour"` // default 5000
	Day  PointsOrOff `option:"day"`  // default 35000
}

func (a *Account) defaults() { a.Budget = Budget{Hour: pds.DefaultHour, Day: pds.DefaultDay} }

func (a *Account) check(m *mistakes) {
	m.check("options.account.service", pds.CheckService(a.Service))
	m.check("options.account.identifier", pds.CheckIdentifier(a.Identifier))
	if a.PasswordFile == "" {
		m.add("options.account.password_file", "required; write an app password of the account to a file with mode 0600")
	}
	checkDirectory(m, "options.account.plc", a.PLC)
}

// CheckPassword returns an error if the password file cannot be used.
func (a *Account) CheckPassword() error {
	if _, err := private.ReadFile(a.PasswordFile); err != nil {
		return fmt.Errorf("options.account.password_file: %w", err)
	}
	return nil
}

// AccountFile is the file of the account's session, logins and spent points.
func (o *Options) AccountFile() string { return filepath.Join(o.Data, "account.json") }

// Directory is the URL of the directory that did:plc is resolved at; "": the public one.
func (o *Options) Directory() string {
	switch {
	case o.Account != nil:
		return o.Account.PLC
	case o.Hold != nil:
		return o.Hold.PLC
	case o.Remote != nil:
		return o.Remote.Directory()
	}
	return ""
}

// PDS returns the configuration of the client of the account, which the caller
// completes.
func (o *Options) PDS() pds.Config {
	return pds.Config{
		Service: o.Account.Service, Identifier: o.Account.Identifier, PasswordFile: o.Account.PasswordFile, PLC: o.Account.PLC,
		File:   o.AccountFile(),
		Budget: pds.Budget{Hour: int(o.Account.Budget.Hour), Day: int(o.Account.Budget.Day)},
	}
}

// PublicURL returns the https URL at which the public reaches the registry, without a slash
// at the end; "" if it is not known, not https, or on this machine.
func (o *Options) PublicURL(c *configuration.Configuration) string {
	u := &url.URL{Scheme: "https", Host: o.RegistryHost(c)}
	if o.Hold == nil {
		given, err := url.Parse(c.HTTP.Host)
		if err != nil || given.Scheme != "https" {
			return ""
		}
	}
	if u.Host == "" || guard.Loopback(u.Hostname()) {
		return ""
	}
	return u.String()
}

// RegistryHost returns the host that clients use to pull from the registry: the hostname of
// the hold, or that of http.host in the registry's configuration; "" if it is not known.
func (o *Options) RegistryHost(c *configuration.Configuration) string {
	if o.Hold != nil {
		return o.Hold.Hostname
	}
	u, err := url.Parse(c.HTTP.Host)
	if err != nil {
		return ""
	}
	return u.Host
}
