package config

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"regexp"

	"github.com/tidings-dev/tidings/internal/clientaddr"
)

func (h *HTTP) check(m *mistakes) {
	if h.Addr != "" {
		m.check("options.http.addr", checkAddr(h.Addr))
	}
	m.check("options.http.client_header", checkHeader(h.ClientHeader))
	each(m, "options.http.proxies", h.Proxies, func(text string) error {
		_, err := network(text)
		return err
	})
}

var headerName = regexp.MustCompile(`^[A-Za-z0-9-]+$`)

func checkHeader(name string) error {
	switch {
	case name == "":
		return nil
	case !headerName.MatchString(name):
		return fmt.Errorf(`%q is not the name of a header; write the one that the proxy sets, like "X-Forwarded-For"`, name)
	case http.CanonicalHeaderKey(name) == "Forwarded":
		return errors.New(`the header Forwarded has more than addresses; let the proxy write "X-Forwarded-For"`)
	}
	return nil
}

// network reads an address or a network.
func network(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil || prefix != prefix.Masked() || prefix.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf(`%q is not an address or a network; write it like "10.0.0.7", "10.0.0.0/24" or "2001:db8::/64"`, text)
	}
	return prefix, nil
}

// Clients finds the clients of whoever calls through a proxy.
func (h *HTTP) Clients() clientaddr.Proxies {
	p := clientaddr.Proxies{Header: h.ClientHeader}
	for _, text := range h.Proxies {
		if from, err := network(text); err == nil { // as checked
			p.From = append(p.From, from)
		}
	}
	return p
}
