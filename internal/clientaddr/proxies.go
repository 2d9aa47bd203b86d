package clientaddr

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Proxies configures the header that has the client's address, and the proxies that are
// trusted to set it.
type Proxies struct {
	Header string         // such as X-Forwarded-For; empty: no proxies
	From   []netip.Prefix // the proxies
}

// Resolve returns the request with the client's address as its RemoteAddr if it
// comes through a proxy, with port 0. Each proxy appends the address of its peer, so
// the client is the last address in the header that is not a proxy; anything before it
// can be forged. A request through a Unix socket comes from a proxy.
func (p Proxies) Resolve(r *http.Request) *http.Request {
	if p.Header == "" {
		return r
	}
	peer := remote(r)
	if peer.IsValid() && !p.has(peer) {
		return r
	}
	client := p.client(r.Header[http.CanonicalHeaderKey(p.Header)], peer)
	if !client.IsValid() || client == peer {
		return r
	}
	resolved := *r
	resolved.RemoteAddr = netip.AddrPortFrom(client, 0).String()
	return &resolved
}

// client goes through the header's values backwards. A value that is not an address was
// not set by a trusted proxy, so the address after it is the last known one.
func (p Proxies) client(values []string, peer netip.Addr) netip.Addr {
	for _, value := range slices.Backward(values) {
		for value != "" {
			rest, last := "", value
			if i := strings.LastIndexByte(value, ','); i >= 0 {
				rest, last = value[:i], value[i+1:]
			}
			addr := hop(strings.TrimSpace(last))
			if !addr.IsValid() {
				return peer
			}
			if peer = addr; !p.has(addr) {
				return addr
			}
			value = rest
		}
	}
	return peer
}

// hop parses an address with or without a port.
func hop(text string) netip.Addr {
	if host, _, err := net.SplitHostPort(text); err == nil {
		text = host
	}
	return parse(strings.Trim(text, "[]"))
}

func (p Proxies) has(addr netip.Addr) bool {
	return slices.ContainsFunc(p.From, func(from netip.Prefix) bool { return from.Contains(addr) })
}
