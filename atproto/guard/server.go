package guard

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"
)

// ParseServer parses the address of a server: https://host with or without a port, or
// http:// for a server on this machine. In errors kind is what the server is, such as
// "a relay", and example is a valid address.
func ParseServer(text, kind, example string) (*url.URL, error) {
	hint := "use an address like " + example
	if strings.Contains(text, "@") { // other errors quote the text
		return nil, fmt.Errorf("the address of %s can't have a password; %s", kind, hint)
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.Opaque != "" {
		return nil, fmt.Errorf("%q is not the address of %s; %s", text, kind, hint)
	}
	if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%q has more than a host and port; %s", text, hint)
	}
	switch {
	case u.Scheme == "https", u.Scheme == "http" && Loopback(u.Hostname()):
	case u.Scheme == "wss", u.Scheme == "ws":
		return nil, fmt.Errorf("%q is a WebSocket address, but requests to %s use https; %s", text, kind, hint)
	case u.Scheme == "http":
		return nil, fmt.Errorf("%q: only %s on this machine can use http; %s", text, kind, hint)
	default:
		return nil, fmt.Errorf("%q is neither https nor http; %s", text, hint)
	}
	if addr, err := netip.ParseAddr(u.Hostname()); err == nil && !Public(addr) && !Loopback(u.Hostname()) {
		return nil, fmt.Errorf("%q is neither a public nor a loopback address; %s", text, hint)
	}
	return u, nil
}
