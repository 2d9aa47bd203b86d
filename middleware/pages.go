package middleware

import (
	"github.com/tidings-dev/tidings/notifier/pages"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/versions"
)

// openPages mounts the pages and feeds. Without public repositories they have no content.
func (r *runtime) openPages() error {
	if len(r.options.Public) == 0 {
		return nil
	}
	r.mounts = append(r.mounts, mount{pages.Prefix, pages.New(pages.Config{
		Versions: versions.New(state.OnPebble(r.state)),
		Counts:   r.counts(),
		Visible:  r.notifier.Public,
		Name:     r.siteName(),
		Base:     r.options.PublicURL(r.host),
		Account:  r.account,
		Pull:     r.reference(),
		Logger:   r.log,
	})})
	return nil
}

// siteName is the name of the registry on its pages.
func (r *runtime) siteName() string {
	if host := r.options.RegistryHost(r.host); host != "" {
		return host
	}
	return "Container registry"
}

// pageOf returns the function that returns the address of the page of a version; nil if the
// public cannot reach the pages.
func (r *runtime) pageOf() func(repository, tag, digest string) string {
	base := r.options.PublicURL(r.host)
	if base == "" || r.options.HTTP.Addr != "" && r.options.Hold == nil {
		return nil // a listener of its own may have another address
	}
	return func(repository, tag, _ string) string { return pages.URL(base, repository, tag) }
}
