// Package clientaddr identifies clients by their addresses, to share limited resources
// such as slots, logins and subscriptions among them.
//
// One client is an IPv4 address or an IPv6 /64 network, the least that a provider
// assigns to a customer. Behind a proxy all requests have the proxy's address; Proxies
// takes the client's from the header that the proxy sets.
package clientaddr

import (
	"net"
	"net/http"
	"net/netip"
)

// Of returns the client of a request, by its RemoteAddr. Requests without an IP address,
// as from a Unix socket, are one client: the zero prefix.
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

// parse returns the zero address for invalid text.
func parse(text string) netip.Addr {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap().WithZone("")
}
