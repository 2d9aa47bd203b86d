package config

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"text/template"

	"github.com/tidings-dev/tidings/notifier/post"
)

// Link is what the template of announce.link may use.
type Link struct {
	Repository string
	Tag        string
	Digest     string // "sha256:…"
}

// LinkTo is the address that a post about an image points to; empty when
// announce.link was not given.
func (a *Announce) LinkTo(image Link) (string, error) {
	if a.Link == "" {
		return "", nil
	}
	t, err := template.New("link").Option("missingkey=error").Parse(a.Link)
	if err != nil {
		return "", fmt.Errorf("parse the link: %w", err)
	}
	var out strings.Builder
	if err := t.Execute(&out, image); err != nil {
		return "", fmt.Errorf("fill in the link: %w", err)
	}
	return strings.TrimSpace(out.String()), nil
}

// checkLink fills the link in for an image as there are many. One image's name
// can still make an address that no post takes; its post then has no link.
func (a *Announce) checkLink() error {
	link, err := a.LinkTo(Link{Repository: "oss/app", Tag: "v1.2.3", Digest: "sha256:" + strings.Repeat("0", 64)})
	if err != nil {
		return fmt.Errorf("%w; it may use {{.Repository}}, {{.Tag}} and {{.Digest}}", err)
	}
	if link == "" {
		return nil
	}
	u, err := url.Parse(link)
	if err == nil && u.User != nil {
		return errors.New("has a user name or a password in it; everybody would read it")
	}
	if err != nil || post.CheckLink(link) != nil {
		return fmt.Errorf(`%q is not an address people can open; write one like "https://example.com/{{.Repository}}"`, a.Link)
	}
	return nil
}
