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
		Document: r.document,
		Logger:   r.log,
	})})
	if r.site != nil {
		for _, path := range r.site.Paths() {
			r.mounts = append(r.mounts, mount{path, r.site})
		}
	}
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
	if r.options.PagesURL(r.host) == "" {
		return nil
	}
	base := r.options.PublicURL(r.host)
	return func(repository, tag, _ string) string { return pages.URL(base, repository, tag) }
}
