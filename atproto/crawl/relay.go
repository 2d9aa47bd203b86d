package crawl

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"github.com/tidings-dev/tidings/atproto/guard"
)

const goodRelay = "write it like https://relay.example.com"

// parseRelay accepts https://host with or without a port, and http:// for a
// relay on this machine.
func parseRelay(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.Opaque != "" {
		return nil, fmt.Errorf("%q is not the address of a relay; %s", text, goodRelay)
	}
	if u.User != nil {
		return nil, errors.New("a relay takes no password; " + goodRelay)
	}
	if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%q has more than a host; %s", text, goodRelay)
	}
	switch {
	case u.Scheme == "https", u.Scheme == "http" && guard.Loopback(u.Hostname()):
	case u.Scheme == "wss", u.Scheme == "ws":
		return nil, fmt.Errorf("%q is a WebSocket's address, and a relay is asked by https; %s", text, goodRelay)
	case u.Scheme == "http":
		return nil, fmt.Errorf("%q is not https, which only a relay on this machine may be; %s", text, goodRelay)
	default:
		return nil, fmt.Errorf("%q is neither https nor http; %s", text, goodRelay)
	}
	if addr, err := netip.ParseAddr(u.Hostname()); err == nil && !guard.Public(addr) && !guard.Loopback(u.Hostname()) {
		return nil, fmt.Errorf("%q is not a public address, nor this machine's own; %s", text, goodRelay)
	}
	return u, nil
}

// CheckRelay says what is wrong with the address of a relay.
func CheckRelay(text string) error {
	_, err := parseRelay(text)
	return err
}
