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

// FromRegistry finds the one middleware.repository entry named tidings, reads
// its options, and holds them against the rest of the configuration. found is
// false when there is no entry, and the registry then behaves as if Tidings
// were not there. An entry with `disabled: true` has Enabled false.
func FromRegistry(c *configuration.Configuration) (o *Options, found bool, err error) {
	entry, found, err := find(c)
	if err != nil || !found {
		return nil, found, err
	}
	o, m := parse(entry.Options)
	if entry.Disabled {
		o.Enabled = false
	}
	if o.Enabled {
		o.beside(c, m)
	}
	if err := m.err(); err != nil {
		return nil, true, err
	}
	return o, true, nil
}

func find(c *configuration.Configuration) (entry configuration.Middleware, found bool, err error) {
	var at []string
	var wrong []error
	for where, list := range c.Middleware {
		for i, e := range list {
			if e.Name != Name {
				continue
			}
			place := fmt.Sprintf("middleware.%s[%d]", where, i)
			if where != "repository" {
				wrong = append(wrong, &Error{place, "tidings is a repository middleware; put it under middleware.repository"})
				continue
			}
			at = append(at, place)
			entry = e
		}
	}
	if len(at) > 1 {
		wrong = append(wrong, &Error{"middleware.repository",
			fmt.Sprintf("tidings stands here %d times (%s), and every push would be told that often; keep one", len(at), strings.Join(at, ", "))})
	}
	if len(wrong) > 0 {
		slices.SortFunc(wrong, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
		return entry, true, errors.Join(wrong...)
	}
	return entry, len(at) == 1, nil
}

// beside checks the options against the registry's own.
func (o *Options) beside(c *configuration.Configuration, m *mistakes) {
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
