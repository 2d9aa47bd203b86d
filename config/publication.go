package config

import (
	"fmt"

	"github.com/distribution/distribution/v3/configuration"

	"github.com/tidings-dev/tidings/notifier/pages"
	"github.com/tidings-dev/tidings/notifier/publication"
)

// Publication makes the registry a site.standard.publication. The option may also be true, for
// the defaults.
type Publication struct {
	// Name is the name of the publication. Default: the host of the registry.
	Name string `option:"name"`

	// Description says what is published. Default: none.
	Description string `option:"description"`

	// Icon is a square PNG or JPEG file of at least 256 × 256 pixels and at most 1 MB.
	// Default: a pattern that depends on the host of the registry.
	Icon string `option:"icon"`
}

// decodePublication decodes the option; nil: false.
func (m *mistakes) decodePublication(path string, raw any) (p *Publication, section bool) {
	on, err := boolean(raw)
	switch {
	case err != nil && kind(raw) == "a section":
		return nil, true
	case err != nil:
		m.add(path, "is "+kind(raw)+", but must be true, false, or a section with name, description and icon")
	case on:
		return &Publication{}, false
	}
	return nil, false
}

func (p *Publication) check(m *mistakes) {
	d := publication.Description{URL: "https://registry.example.com", Name: "registry", Text: p.Description}
	m.check("options.announce.publication.description", d.Check())
	if p.Name != "" {
		m.check("options.announce.publication.name", publication.Description{URL: d.URL, Name: p.Name}.Check())
	}
}

// ReadIcon reads the icon; nil: the default.
func (p *Publication) ReadIcon() (*publication.Icon, error) {
	if p.Icon == "" {
		return nil, nil
	}
	icon, err := publication.ReadIcon(p.Icon)
	if err != nil {
		return nil, fmt.Errorf("options.announce.publication.icon: %w", err)
	}
	return icon, nil
}

// checkPublication checks that readers can reach the pages of the publication.
func (o *Options) checkPublication(c *configuration.Configuration, m *mistakes) {
	if o.Announce == nil || o.Announce.Publication == nil || o.PagesURL(c) != "" {
		return
	}
	const path = "options.announce.publication"
	switch {
	case o.PublicURL(c) != "":
		m.add(path, "its readers need the pages at the registry's address, but they are served at http.addr; remove http.addr")
	case o.Hold != nil:
		m.add(path, o.Hold.Hostname+" is not reachable from the network, but readers of a publication open its pages; use a domain as hold.hostname, or remove publication")
	default:
		m.add(path, `readers of a publication open its pages, whose address is not known; set http.host of the registry's configuration, like "https://registry.example.com"`)
	}
}

// PagesURL returns the https URL at which the public reaches the pages, without a slash at
// the end; "" if it cannot.
func (o *Options) PagesURL(c *configuration.Configuration) string {
	base := o.PublicURL(c)
	if base == "" || o.HTTP.Addr != "" && o.Hold == nil {
		return "" // a listener of its own may have another address
	}
	return base + pages.Root
}
