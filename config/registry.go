package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/distribution/distribution/v3/configuration"
)

// Name is the name of the middleware in the registry's configuration.
const Name = "tidings"

// FromRegistry parses the options of the entry that Entry returns, and checks them
// against the rest of the configuration. found is false if there is no entry. An
// entry with `disabled: true` has Enabled false.
func FromRegistry(c *configuration.Configuration) (o *Options, found bool, err error) {
	entry, err := Entry(c)
	if err != nil || entry == nil {
		return nil, err != nil, err
	}
	o, m := parse(entry.Options)
	if entry.Disabled {
		o.Enabled = false
	}
	if o.Enabled {
		o.checkRegistry(c, m)
	}
	if err := m.err(); err != nil {
		return nil, true, err
	}
	return o, true, nil
}

// Entry returns the middleware.repository entry named tidings, or nil. More than one
// entry, an entry in another section, or a misspelled name is an error.
func Entry(c *configuration.Configuration) (*configuration.Middleware, error) {
	var found []string // paths
	var entry *configuration.Middleware
	var wrong []error
	for section, list := range c.Middleware {
		for i := range list {
			path := fmt.Sprintf("middleware.%s[%d]", section, i)
			if list[i].Name != Name {
				if section == "repository" {
					wrong = append(wrong, checkName(path+".name", list[i].Name))
				}
				continue
			}
			if section != "repository" {
				wrong = append(wrong, &mistake{path, "tidings is a repository middleware; move it to middleware.repository"})
				continue
			}
			found, entry = append(found, path), &list[i]
		}
	}
	if len(found) > 1 {
		wrong = append(wrong, &mistake{"middleware.repository",
			fmt.Sprintf("has %d entries named tidings (%s), so every push would be recorded several times; remove all but one", len(found), strings.Join(found, ", "))})
	}
	wrong = slices.DeleteFunc(wrong, func(err error) bool { return err == nil })
	slices.SortFunc(wrong, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return entry, errors.Join(wrong...)
}

// checkName returns an error for the name of another repository middleware if it is missing or
// looks like a misspelling of ours: the registry would start and answer every request for a
// repository with 500. Other names that do not exist are not found, because the registry cannot
// be asked which ones a program has registered without running them.
func checkName(path, name string) error {
	switch near := nearest(name, []string{Name}); {
	case name == "":
		return &mistake{path, "required; use tidings"}
	case near != "":
		return &mistake{path, fmt.Sprintf("%q is unknown; did you mean %s?", name, near)}
	}
	return nil
}

// checkRegistry checks the options against those of the registry.
func (o *Options) checkRegistry(c *configuration.Configuration, m *mistakes) {
	if o.Redis != nil && o.Redis.Inherit {
		if len(c.Redis.Options.Addrs) == 0 {
			m.add("options.redis", "inherit uses the registry's redis section, which has no addrs; set them there or here")
		}
		o.Redis.registry = &c.Redis
	}
	o.checkActors(c, m)
	o.checkPublication(c, m)
	if o.HTTP.Addr != "" && o.HTTP.Addr == c.HTTP.Addr {
		m.add("options.http.addr", fmt.Sprintf("%s is the address of the registry itself; remove it to share that port", o.HTTP.Addr))
	}
	if o.Announce != nil && !o.Announce.AnonymousPushes && anonymous(c) {
		switch {
		case !local(c):
			m.add("options.announce", fmt.Sprintf("anyone who reaches %s could make this account post, since the registry has no auth; "+
				"add auth, listen on 127.0.0.1, or allow it with announce.anonymous_pushes: true", listenAddr(c)))
		case o.proxied() && !m.at["options.hold.hostname"]:
			m.add("options.announce", fmt.Sprintf("anyone whom the proxy in front of %s admits could make this account post, since the registry has no auth and %s is reached from outside; "+
				"add auth or, if the proxy authenticates users or anonymous pushes are acceptable, set announce.anonymous_pushes: true", listenAddr(c), o.Hold.Hostname))
		}
	}

	if c.HTTP.DrainTimeout == 0 {
		o.warn("http.draintimeout is not set: the registry stops without finishing requests in progress; no event is lost, but 10s is recommended")
	}
	if (o.Hold != nil || o.Account != nil) && c.Proxy.RemoteURL != "" {
		o.warn("the registry is a pull-through cache (proxy.remoteurl): it accepts no pushes, so pulls are counted and nothing is published")
	}
	o.warnRemote(c)
	if o.Hold != nil && c.HTTP.TLS.LetsEncrypt.CacheFile != "" && !slices.Contains(c.HTTP.TLS.LetsEncrypt.Hosts, o.Hold.Hostname) {
		o.warn(fmt.Sprintf("http.tls.letsencrypt.hosts does not include %s, the hold's hostname; the network cannot reach it unless a proxy serves it", o.Hold.Hostname))
	}
	plain := o.HTTP.Addr != "" || c.HTTP.TLS.Certificate == "" && c.HTTP.TLS.LetsEncrypt.CacheFile == ""
	if o.Hold != nil && !o.Hold.local() && plain && o.HTTP.ClientHeader == "" {
		o.warn(fmt.Sprintf("%s is reached over https and served without TLS here, so there must be a proxy, and all its clients share the limits of one client; "+
			`set http.client_header to the header in which it sends the client's address, such as "X-Forwarded-For"`, o.Hold.Hostname))
	}
	if c.HTTP.Debug.Addr != "" && len(c.Redis.Options.Addrs) > 0 && !loopback(c.HTTP.Debug.Addr) {
		o.warn(fmt.Sprintf("http.debug.addr %s is reachable from outside, and /debug/vars shows the whole configuration, including the Redis password", c.HTTP.Debug.Addr))
	}
}

// anonymous reports whether the registry accepts pushes without authentication.
func anonymous(c *configuration.Configuration) bool {
	authenticated := c.Auth.Type() != "" && c.Auth.Type() != "silly" // which accepts everybody
	if authenticated || c.Proxy.RemoteURL != "" {
		return false
	}
	mode := c.HTTP.TLS.ClientAuth
	return len(c.HTTP.TLS.ClientCAs) == 0 || (mode != "" && mode != configuration.ClientAuthRequireAndVerifyClientCert)
}

// local reports whether the registry is reachable from this machine only.
func local(c *configuration.Configuration) bool {
	return c.HTTP.Net == "unix" || loopback(c.HTTP.Addr)
}

// proxied reports whether a local registry is reachable from outside as well: the
// account has a domain and is on the registry's port, so there must be a proxy.
func (o *Options) proxied() bool {
	return o.Hold != nil && !o.Hold.local() && o.HTTP.Addr == ""
}

// listenAddr returns the address of the registry for errors.
func listenAddr(c *configuration.Configuration) string {
	if c.HTTP.Addr == "" {
		return "it"
	}
	return c.HTTP.Addr
}
