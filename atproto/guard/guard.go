// Package guard creates HTTP clients for servers that others control, and reads their
// responses. A name may only resolve to a public address, or to loopback if it is a name
// of this machine. Redirects are not followed, and responses are limited in time and
// size.
package guard

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// globalUnicast is the part of IPv6 that IANA assigns to networks. Addresses outside it
// have special meanings; many embed an IPv4 address: ::/96, ::ffff:0:0:0/96,
// 64:ff9b::/96.
var globalUnicast = netip.MustParsePrefix("2000::/3")

// notPublic are ranges that look global but are in IANA's registries of
// special-purpose addresses, and ranges that embed an IPv4 address.
var notPublic = prefixes(
	"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24",
	"198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
	"2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
)

func prefixes(texts ...string) []netip.Prefix {
	list := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		list[i] = netip.MustParsePrefix(text)
	}
	return list
}

// Public reports whether an address is reachable on the public internet.
func Public(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	if !addr.IsGlobalUnicast() || addr.IsPrivate() || addr.Is6() && !globalUnicast.Contains(addr) {
		return false
	}
	for _, p := range notPublic {
		if p.Contains(addr) {
			return false
		}
	}
	return true
}

// Loopback reports whether a hostname or address is one of this machine.
func Loopback(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// Client returns a client for one server. The address is checked when the connection is
// made, so that the name can't resolve to another one after the check.
func Client(server *url.URL) *http.Client {
	allowed, wanted := Public, "a public address"
	if Loopback(server.Hostname()) {
		allowed, wanted = func(addr netip.Addr) bool { return addr.Unmap().IsLoopback() }, "this machine"
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("parse address %q: %w", address, err)
		}
		if !allowed(to.Addr()) {
			return fmt.Errorf("%s resolves to %s, which is not %s", server.Hostname(), to.Addr(), wanted)
		}
		return nil
	}}
	return &http.Client{
		Timeout: 20 * time.Second,
		Transport: &http.Transport{
			DialContext:            dialer.DialContext,
			TLSHandshakeTimeout:    10 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
			DisableKeepAlives:      true, // there are a few requests an hour
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// KeepAlive returns a client like that of Client for a server that gets many requests in
// a row, which share a connection. An idle connection is closed soon: a server may close
// it at the same time as a request is sent, and then it is unknown whether it got it.
func KeepAlive(server *url.URL) *http.Client {
	client := Client(server)
	transport := client.Transport.(*http.Transport)
	transport.DisableKeepAlives = false
	transport.MaxIdleConnsPerHost = 2
	transport.IdleConnTimeout = 5 * time.Second
	return client
}
