package appview

import (
	"net"
	"net/netip"
	"net/url"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/tidings-dev/tidings/atproto/guard"
)

const (
	// Public is the address of Bluesky's AppView for requests without an account.
	Public = "https://public.api.bsky.app"
	// Off in place of an address means that no AppView is asked.
	Off = "off"
)

func parse(address string) (*url.URL, error) {
	return guard.ParseServer(address, "an AppView", Public+", or "+Off)
}

// Check returns an error unless address is Off or the address of an AppView.
func Check(address string) error {
	if address == Off {
		return nil
	}
	_, err := parse(address)
	return err
}

// Default returns the AppView to ask about an account on a host, a name with or without
// a port: Public, or Off for a host that is not on the public network.
func Default(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if guard.Loopback(host) {
		return Off
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return Off
	}
	if name, err := syntax.ParseHandle(host); err != nil || !name.AllowedTLD() {
		return Off
	}
	return Public
}
