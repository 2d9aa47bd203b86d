package config

import (
	"fmt"
	"net"
	"strconv"

	"github.com/tidings-dev/tidings/atproto/guard"
	"github.com/tidings-dev/tidings/internal/clientaddr"
)

func (h *HTTP) check(m *mistakes) {
	if h.Addr != "" {
		m.check("options.http.addr", checkAddr(h.Addr))
	}
	m.check("options.http.client_header", clientaddr.ValidateHeader(h.ClientHeader))
	each(m, "options.http.proxies", h.Proxies, func(text string) error {
		_, err := clientaddr.ParseNetwork(text)
		return err
	})
}

// Clients returns the proxies whose client header is trusted.
func (h *HTTP) Clients() clientaddr.Proxies {
	p := clientaddr.Proxies{Header: h.ClientHeader}
	for _, text := range h.Proxies {
		if from, err := clientaddr.ParseNetwork(text); err == nil { // check has reported the error
			p.From = append(p.From, from)
		}
	}
	return p
}

// checkAddr accepts the addresses of net.Listen: host:port, or :port.
func checkAddr(addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf(`%q is an invalid listen address; use host:port, like "127.0.0.1:5080" or ":5080"`, addr)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("%q has an invalid port; use a number up to 65535", addr)
	}
	return nil
}

// loopback reports whether a listener on addr is reachable from this machine only.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	return err == nil && guard.Loopback(host)
}
