// Package clientaddr tells clients apart by their addresses, so that each gets
// a share of what there is little of: places, logins, subscriptions.
//
// One client is an IPv4 address or an IPv6 network of 64 bits, which is what one
// customer of a provider has at least. Behind a proxy all clients have the
// proxy's address; Proxies finds theirs in the header that the proxy writes.
package clientaddr

import (
	"net"
	"net/http"
	"net/netip"
)

// Of is the client that a request comes from, by its RemoteAddr. Those whose
// address is none, as of a Unix socket, are one client: the zero prefix.
func Of(r *http.Request) netip.Prefix {
	addr := remote(r)
	bits := 64
	if addr.Is4() {
		bits = 32
	}
	prefix, _ := addr.Prefix(bits) // the zero prefix of the zero address
	return prefix
}

func remote(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	return parse(host)
}

// parse is the zero address for a text that is none.
func parse(text string) netip.Addr {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap().WithZone("")
}
