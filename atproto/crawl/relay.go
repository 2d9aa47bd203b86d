package crawl

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"github.com/tidings-dev/tidings/atproto/guard"
)

const goodRelay = "use an address like https://relay.example.com"

// parseRelay accepts https://host with or without a port, and http:// for a
// relay on this machine.
func parseRelay(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.Opaque != "" {
		return nil, fmt.Errorf("%q is not the address of a relay; %s", text, goodRelay)
	}
	if u.User != nil {
		return nil, errors.New("the address of a relay can't have a password; " + goodRelay)
	}
	if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%q has more than a host and port; %s", text, goodRelay)
	}
	switch {
	case u.Scheme == "https", u.Scheme == "http" && guard.Loopback(u.Hostname()):
	case u.Scheme == "wss", u.Scheme == "ws":
		return nil, fmt.Errorf("%q is a WebSocket address, but requests to a relay use https; %s", text, goodRelay)
	case u.Scheme == "http":
		return nil, fmt.Errorf("%q: only a relay on this machine can use http; %s", text, goodRelay)
	default:
		return nil, fmt.Errorf("%q is neither https nor http; %s", text, goodRelay)
	}
	if addr, err := netip.ParseAddr(u.Hostname()); err == nil && !guard.Public(addr) && !guard.Loopback(u.Hostname()) {
		return nil, fmt.Errorf("%q is neither a public nor a loopback address; %s", text, goodRelay)
	}
	return u, nil
}

// CheckRelay returns an error for an invalid address of a relay.
func CheckRelay(text string) error {
	_, err := parseRelay(text)
	return err
}
