package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

const goodHostname = "write a domain like registry.example.com, or localhost:5000 to try things out"

// checkHostname accepts what can become a did:web: a domain without a port, or
// localhost with or without one (https://atproto.com/specs/did).
func checkHostname(name string) error {
	if name == "" {
		return errors.New("required; " + goodHostname)
	}
	if strings.HasPrefix(name, "did:") {
		return fmt.Errorf("%q is a DID; the DID is made from the hostname, so %s", name, goodHostname)
	}
	if strings.Contains(name, "://") {
		return fmt.Errorf("%q is a URL; leave out the scheme: %s", name, goodHostname)
	}
	if strings.Contains(name, "/") {
		return fmt.Errorf("%q has a path, which an identity cannot have; %s", name, goodHostname)
	}
	host, port, hasPort := strings.Cut(name, ":")
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		return fmt.Errorf("%q is an IP address, which an identity cannot be; %s", name, goodHostname)
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return fmt.Errorf("%q is an IP address, which an identity cannot be; %s", name, goodHostname)
	}
	if host == "localhost" {
		if n, err := strconv.ParseUint(port, 10, 16); hasPort && (err != nil || n == 0 || port[0] == '0') {
			return fmt.Errorf("%q has no valid port; %s", name, goodHostname)
		}
		return nil
	}
	if hasPort {
		return fmt.Errorf("%q has a port, which only localhost may have: the network asks on 443; %s", name, goodHostname)
	}
	if name != strings.ToLower(name) {
		return fmt.Errorf("%q has capital letters; write %s", name, strings.ToLower(name))
	}
	if _, err := syntax.ParseHandle(name); err != nil {
		return fmt.Errorf("%q is not a domain; %s", name, goodHostname)
	}
	return nil
}

// checkAddr accepts what net.Listen takes: host:port, or :port.
func checkAddr(addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf(`%q is not an address to listen on; write host:port, like "127.0.0.1:5080" or ":5080"`, addr)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("%q has no valid port; a port is a number up to 65535", addr)
	}
	return nil
}

// loopback says whether only this machine reaches what listens on addr.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
