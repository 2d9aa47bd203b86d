package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/distribution/distribution/v3/configuration"
)

// Name is what the middleware is called in the registry's configuration.
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

// Entry returns the one middleware.repository entry named tidings; nil if there is
// none. More than one, or one in another section, is an error.
func Entry(c *configuration.Configuration) (*configuration.Middleware, error) {
	var found []string // paths
	var entry *configuration.Middleware
	var wrong []error
	for section, list := range c.Middleware {
		for i := range list {
			if list[i].Name != Name {
				continue
			}
			path := fmt.Sprintf("middleware.%s[%d]", section, i)
			if section != "repository" {
				wrong = append(wrong, &Error{path, "tidings is a repository middleware; move it to middleware.repository"})
				continue
			}
			found, entry = append(found, path), &list[i]
		}
	}
	if len(found) > 1 {
		wrong = append(wrong, &Error{"middleware.repository",
			fmt.Sprintf("has %d entries named tidings (%s), which would record every push as often; remove all but one", len(found), strings.Join(found, ", "))})
	}
	slices.SortFunc(wrong, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return entry, errors.Join(wrong...)
}

// checkRegistry checks the options against those of the registry.
func (o *Options) checkRegistry(c *configuration.Configuration, m *mistakes) {
	if o.Redis != nil && o.Redis.Inherit {
		if len(c.Redis.Options.Addrs) == 0 {
			m.add("options.redis", "inherit takes the registry's redis section, and that has no addrs; give it some, or write addrs here")
		}
		o.Redis.registry = &c.Redis
	}
	if o.HTTP.Addr != "" && o.HTTP.Addr == c.HTTP.Addr {
		m.add("options.http.addr", fmt.Sprintf("%s is where the registry itself listens; leave it out to share that port", o.HTTP.Addr))
	}
	if o.Announce != nil && !o.Announce.AnonymousPushes && anonymous(c) {
		switch {
		case !local(c):
			m.add("options.announce", fmt.Sprintf("anyone who reaches %s could make this account post, because the registry has no auth that asks who they are; "+
				"add auth, listen on 127.0.0.1, or accept it with announce.anonymous_pushes: true", listens(c)))
		case o.proxied():
			m.add("options.announce", fmt.Sprintf("whoever the proxy in front of %s lets through could make this account post, because the registry has no auth that asks who they are, and %s is reached from outside; "+
				"add auth, or accept it, or say that the proxy asks, with announce.anonymous_pushes: true", listens(c), o.Hold.Hostname))
		}
	}

	if c.HTTP.DrainTimeout == 0 {
		o.warn("http.draintimeout is not set, so the registry dies at once when it is told to stop; nothing is lost, but set it to 10s to finish what is in flight")
	}
	if o.Hold != nil && c.Proxy.RemoteURL != "" {
		o.warn("the registry is a pull-through cache (proxy.remoteurl): it takes no pushes, so pulls are counted and nothing is published")
	}
	if o.Hold != nil && c.HTTP.TLS.LetsEncrypt.CacheFile != "" && !slices.Contains(c.HTTP.TLS.LetsEncrypt.Hosts, o.Hold.Hostname) {
		o.warn(fmt.Sprintf("http.tls.letsencrypt.hosts does not have %s, the hold's hostname; the network cannot reach it unless something in front answers for it", o.Hold.Hostname))
	}
	plain := o.HTTP.Addr != "" || c.HTTP.TLS.Certificate == "" && c.HTTP.TLS.LetsEncrypt.CacheFile == ""
	if o.Hold != nil && !o.Hold.local() && plain && o.HTTP.ClientHeader == "" {
		o.warn(fmt.Sprintf("%s is reached over https and served without TLS here, so there is a proxy in front, and all who come through it share what one client gets; "+
			`set http.client_header to the header in which it writes the client's address, such as "X-Forwarded-For"`, o.Hold.Hostname))
	}
	if c.HTTP.Debug.Addr != "" && len(c.Redis.Options.Addrs) > 0 && !loopback(c.HTTP.Debug.Addr) {
		o.warn(fmt.Sprintf("http.debug.addr %s can be reached from outside, and /debug/vars shows the whole configuration there, the Redis password too", c.HTTP.Debug.Addr))
	}
}

// anonymous says whether whoever reaches the registry can push without showing
// who they are.
func anonymous(c *configuration.Configuration) bool {
	guarded := c.Auth.Type() != "" && c.Auth.Type() != "silly" // which lets everybody in
	if guarded || c.Proxy.RemoteURL != "" {
		return false
	}
	mode := c.HTTP.TLS.ClientAuth
	return len(c.HTTP.TLS.ClientCAs) == 0 || (mode != "" && mode != configuration.ClientAuthRequireAndVerifyClientCert)
}

// local says whether only this machine reaches the registry itself.
func local(c *configuration.Configuration) bool {
	return c.HTTP.Net == "unix" || loopback(c.HTTP.Addr)
}

// proxied says whether others reach a registry that is local: the account has a
// name in the network and is on the registry's port, so a proxy leads there.
func (o *Options) proxied() bool {
	return o.Hold != nil && !o.Hold.local() && o.HTTP.Addr == ""
}

func listens(c *configuration.Configuration) string {
	if c.HTTP.Addr == "" {
		return "it"
	}
	return c.HTTP.Addr
}
