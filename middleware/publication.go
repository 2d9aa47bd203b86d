package middleware

import (
	"fmt"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/internal/clock"
	"github.com/tidings-dev/tidings/notifier/card"
	"github.com/tidings-dev/tidings/notifier/post"
	"github.com/tidings-dev/tidings/notifier/publication"
	"github.com/tidings-dev/tidings/notifier/state"
	"github.com/tidings-dev/tidings/notifier/versions"
)

// openPublication opens the publication of the registry, if it is one.
func (r *runtime) openPublication() error {
	if r.options.Announce == nil || r.options.Announce.Publication == nil {
		return nil
	}
	p := r.options.Announce.Publication
	url, err := post.NormalizeLink(r.options.PagesURL(r.host))
	if err != nil {
		return fmt.Errorf("options.announce.publication: the address of the pages: %w", err)
	}
	d := publication.Description{URL: url, Name: p.Name, Text: p.Description}
	if d.Name == "" {
		d.Name = r.siteName()
	}
	if d.Icon, err = p.ReadIcon(); err != nil {
		return err
	}
	if d.Icon == nil {
		if d.Icon, err = r.defaultIcon(); err != nil {
			return fmt.Errorf("options.announce.publication: the default icon %w", err)
		}
	}
	r.site, err = publication.New(publication.Config{Description: d, Account: r.account, State: state.OnPebble(r.state), Now: clock.Now})
	if err != nil {
		return fmt.Errorf("options.announce.publication: %w", err)
	}
	return nil
}

// defaultIcon draws the icon of a publication without one, from the host of the registry.
func (r *runtime) defaultIcon() (*publication.Icon, error) {
	content, err := card.Icon(r.options.RegistryHost(r.host))
	if err != nil {
		return nil, err
	}
	return publication.NewIcon(content)
}

// document is the at:// URI of the document of a version, "" if it has none.
func (r *runtime) document(v *versions.Version) string {
	if v.Document == "" {
		return ""
	}
	return "at://" + r.account + "/" + lexicon.NSIDDocument + "/" + v.Document
}
