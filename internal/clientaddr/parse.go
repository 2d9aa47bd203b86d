package clientaddr

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
)

var headerName = regexp.MustCompile(`^[A-Za-z0-9-]+$`)

// ValidateHeader returns an error if name cannot be Proxies.Header. An empty name
// is valid.
func ValidateHeader(name string) error {
	switch {
	case name == "":
		return nil
	case !headerName.MatchString(name):
		return fmt.Errorf(`invalid header name %q; use the header that the proxy sets, such as "X-Forwarded-For"`, name)
	case http.CanonicalHeaderKey(name) == "Forwarded":
		return errors.New(`the header Forwarded is not supported; let the proxy set "X-Forwarded-For"`)
	}
	return nil
}

// ParseNetwork parses an address or a network.
func ParseNetwork(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil || prefix != prefix.Masked() || prefix.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf(`invalid address or network %q; use one like "10.0.0.7", "10.0.0.0/24" or "2001:db8::/64"`, text)
	}
	return prefix, nil
}
