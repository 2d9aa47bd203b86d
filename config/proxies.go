package config

import "github.com/tidings-dev/tidings/internal/clientaddr"

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

// Clients returns the proxies through which clients are found.
func (h *HTTP) Clients() clientaddr.Proxies {
	p := clientaddr.Proxies{Header: h.ClientHeader}
	for _, text := range h.Proxies {
		if from, err := clientaddr.ParseNetwork(text); err == nil { // as checked
			p.From = append(p.From, from)
		}
	}
	return p
}
