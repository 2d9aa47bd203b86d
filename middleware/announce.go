package middleware

import (
	"fmt"

	"github.com/tidings-dev/tidings/notifier/announce"
	"github.com/tidings-dev/tidings/notifier/post"
)

func (r *runtime) announce() (*announce.Config, error) {
	a := r.options.Announce
	if a == nil {
		return nil, nil
	}
	link, err := post.ParseLink(a.Link)
	if err != nil {
		return nil, fmt.Errorf("options.announce.link: %w", err)
	}
	text, err := a.ParseTemplate()
	if err != nil {
		return nil, fmt.Errorf("options.announce.template: %w", err)
	}
	if err := r.openPublication(); err != nil {
		return nil, err
	}
	return &announce.Config{
		Tag:         a.Match,
		Exclude:     a.Excluded,
		Collect:     a.Collect,
		Cooldown:    a.Cooldown,
		PerDay:      a.DailyLimit,
		MaxAge:      a.MaxAge,
		Retract:     a.DeletesPosts(),
		Hashtags:    a.Hashtags,
		Mention:     r.mention(),
		Retags:      a.Retags,
		Template:    text,
		Annotations: a.Annotations,
		Langs:       a.Langs,
		Card:        a.Card,
		Site:        r.site,
		Page:        r.pageOf(),
		Host:        r.options.RegistryHost(r.host),
		Reference:   r.reference(),
		Link:        r.link(link),
		DryRun:      a.DryRun,
		Posted:      r.appview.Posted,
	}, nil
}

// link returns the function that returns the address that a post links to: that of the
// option, or the page of the version; nil if there is none.
func (r *runtime) link(option *post.LinkTemplate) func(repository, tag, digest string) string {
	if r.options.Announce.Link == "" {
		return r.pageOf()
	}
	return func(repository, tag, digest string) string {
		address, err := option.Address(post.Image{Repository: repository, Tag: tag, Digest: digest})
		if err != nil {
			r.log.Warn("post without a link", "repository", repository, "error", err)
		}
		return address
	}
}

// reference returns the function that names an image as clients pull it; nil if the host
// of the registry is not known.
func (r *runtime) reference() func(repository, tag string) string {
	host := r.options.RegistryHost(r.host)
	if host == "" {
		return nil
	}
	return func(repository, tag string) string { return host + "/" + repository + ":" + tag }
}
